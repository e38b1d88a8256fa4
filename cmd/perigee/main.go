// Command perigee is a CDN of your own in one binary.
package main

func main() {}
