// OPA's own command line, with the functions of builtins.go registered.
//
// Whoever starts it may pass two pipes in CONFORMA_ENGINE_CALLBACKS ("3,4": one
// to read answers from, one to write calls to) and answer the functions that
// need a registry. Without them, every registry looks unreachable.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/open-policy-agent/opa/cmd"
	"github.com/spf13/cobra"
)

const callbacksVariable = "CONFORMA_ENGINE_CALLBACKS"

// commandLine runs one OPA command and returns OPA's exit status.
func commandLine(args []string) int {
	openSideChannel(os.Getenv(callbacksVariable))
	root := cmd.RootCommand
	root.Use = "opa"
	root.Short += " (embedded)"
	// Help and errors name what was typed.
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "conforma opa"}
	root.CompletionOptions.DisableDefaultCmd = true // a script for "opa" would complete nothing
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

func openSideChannel(pipes string) {
	var from, to int
	if _, err := fmt.Sscanf(pipes, "%d,%d", &from, &to); err != nil {
		return
	}
	_ = os.Unsetenv(callbacksVariable)
	p := newPeer(&frameWriter{to: os.NewFile(uintptr(to), "calls")})
	ctx, lost := context.WithCancelCause(context.Background())
	sideChannel = &evaluation{peer: p, ctx: ctx}
	answers := &frameReader{from: bufio.NewReader(os.NewFile(uintptr(from), "answers"))}
	go func() {
		for {
			var got message
			body, err := answers.next(&got)
			if err != nil {
				lost(err)
				return
			}
			p.deliver(got.Call, answer{kind: got.Kind, body: body})
		}
	}()
}
