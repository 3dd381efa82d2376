package main

// greeting is what a visitor reads.
const greeting = "hello from a container without anything else in it"
