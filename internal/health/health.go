// Package health probes targets, counts rises and falls, and publishes a
// frozen picture of who is up. It knows neither DNS nor HTTP caching.
package health
