//go:build tools

// Package tools names the command that the test stack builds.
package tools

import _ "sigs.k8s.io/kustomize/kustomize/v5"
