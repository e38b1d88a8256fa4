// Package config reads perigee.toml into typed values, with every cross-check,
// and reports each mistake with file, line and a caret.
package config
