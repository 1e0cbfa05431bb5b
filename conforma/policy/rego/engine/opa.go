// OPA's own command line, with the functions of builtins.go registered.
package main

import (
	"errors"

	"github.com/open-policy-agent/opa/cmd"
)

// commandLine runs one OPA command and returns OPA's exit status.
func commandLine(args []string) int {
	root := cmd.RootCommand
	root.Use = "opa"
	root.Short += " (embedded)"
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		var exit *cmd.ExitError
		if errors.As(err, &exit) {
			return exit.Exit
		}
		return 1
	}
	return 0
}
