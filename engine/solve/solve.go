// Package solve turns a node into a tree while running as little as possible.
package solve
