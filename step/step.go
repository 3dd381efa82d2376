// Package step is the build step: what happens between a pipeline, or a person
// at a terminal, handing over inputs and getting back a digest.
package step
