//go:build tools

// Package tools names the command that the test stack builds.
package tools

import _ "github.com/thanos-io/thanos/cmd/thanos"
