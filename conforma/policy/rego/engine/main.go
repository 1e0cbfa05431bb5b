// Command conforma-opa is the policy engine of conforma: OPA as a library
// behind framed pipes, and OPA's own command line with the ec.* functions.
package main

import (
	"fmt"
	"os"

	"github.com/open-policy-agent/opa/v1/version"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(os.Stdin, os.Stdout)
	case len(args) >= 1 && args[0] == "opa":
		return commandLine(args[1:])
	case len(args) == 1 && args[0] == "version":
		fmt.Printf("protocol %d, OPA v%s\n", protocolVersion, version.Version)
		return 0
	}
	fmt.Fprintln(os.Stderr, "usage: conforma-opa serve | opa COMMAND … | version")
	return 2
}
