// OPA's own command line, with the functions of builtins.go registered.
//
// Whoever starts it may pass two pipes in CONFORMA_ENGINE_CALLBACKS ("3,4": one
// to read answers from, one to write calls to) and answer the functions that
// need a registry. Without them, every registry looks unreachable. Through the
// latter they also learn which flags of their own were given behind "opa".
// CONFORMA_ENGINE_NAME is what help and errors call the program.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/open-policy-agent/opa/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	callbacksVariable = "CONFORMA_ENGINE_CALLBACKS"
	nameVariable      = "CONFORMA_ENGINE_NAME"
)

// commandLine runs one OPA command and returns OPA's exit status.
func commandLine(args []string) int {
	openSideChannel(os.Getenv(callbacksVariable))
	name := cmp.Or(os.Getenv(nameVariable), "conforma")
	_ = os.Unsetenv(nameVariable)
	opa := cmd.RootCommand
	opa.Use = "opa"
	opa.Short += " (embedded)"
	var given []string
	root := program(name, opa, &given)
	cobra.OnInitialize(func() {
		if sideChannel != nil && len(given) > 0 {
			_ = sideChannel.peer.out.send(message{Type: "flags", Args: given}, nil)
		}
	})
	args = append([]string{"opa"}, args...)
	words := noCommand(root, opa, args)
	given = nil
	switch {
	case len(words) > 0 && words[0] == "help":
		args = append([]string{"help", "opa"}, words[1:]...)
	case len(words) > 0:
		// cobra would show the help of OPA, as if nothing were wrong.
		path := opa.CommandPath()
		fmt.Fprintf(os.Stderr, "Error: unknown command %q for %q\nRun '%s --help' for usage.\n", words[0], path, path)
		return 1
	}
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

// noCommand is what stands where the name of a command of OPA's should.
func noCommand(root, opa *cobra.Command, args []string) []string {
	found, rest, err := root.Find(args)
	if err != nil || found != opa {
		return nil
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.AddFlagSet(root.PersistentFlags())
	if flags.Parse(rest) != nil {
		return nil // also --help
	}
	return flags.Args()
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
