//go:build tools

// Package tools names the commands that the test stack builds.
package tools

import (
	_ "github.com/perses/perses/cmd/percli"
	_ "github.com/perses/perses/cmd/perses"
)
