// The flags of every command of conforma, which may stand behind the word
// "opa" as well, unless a command of OPA's has one of the same name.
package main

import (
	"encoding/csv"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// global is a flag whose meaning is known to whoever started us: it only has
// to be of the right type, and is handed on as it was written.
type global struct {
	name, kind, shown string
	check             func(string) error
	given             *[]string
}

func (g *global) String() string { return g.shown }
func (g *global) Type() string   { return g.kind }

func (g *global) Set(text string) error {
	if err := g.check(text); err != nil {
		return err
	}
	*g.given = append(*g.given, "--"+g.name+"="+text)
	g.shown = text
	return nil
}

// program makes OPA's command line a sub-command of a program of this name;
// what is given of the program's own flags is appended to the list.
func program(name string, opa *cobra.Command, given *[]string) *cobra.Command {
	root := &cobra.Command{Use: name, SilenceUsage: true}
	root.CompletionOptions.DisableDefaultCmd = true // a script for "opa" would complete nothing
	root.AddCommand(opa)
	add := func(name, kind, shown, usage string, check func(string) error) *pflag.Flag {
		value := &global{name: name, kind: kind, shown: shown, check: check, given: given}
		return root.PersistentFlags().VarPF(value, name, "", usage)
	}
	for name, usage := range map[string]string{
		"debug":   "same as verbose but also show function names and line numbers",
		"quiet":   "less verbose output",
		"verbose": "more verbose output",
	} {
		add(name, "bool", "false", usage, aBool).NoOptDefVal = "true"
	}
	add("kubeconfig", "string", "", "path to the Kubernetes config file to use", anything)
	add("logfile", "string", "", "file to write the logging output. If not specified logging output will be written to stderr", anything)
	add("trace", "string", "none", "enable trace logging, set one or more comma separated values: none,all,perf,cpu,mem,opa,log", aList).NoOptDefVal = "log"
	add("timeout", "duration", "5m0s", "max overall execution duration", aDuration)
	add("retry-duration", "duration", "1s", "base duration for exponential backoff calculation", aDuration)
	add("retry-max-wait", "duration", "3s", "maximum wait time between retries", aDuration)
	add("retry-max-retry", "int", "3", "maximum number of retry attempts", anInt)
	add("retry-factor", "float64", "2", "exponential backoff multiplier", aFloat)
	add("retry-jitter", "float64", "0.1", "randomness factor for backoff calculation (0.0-1.0)", aFloat)
	// Those the Go tool does not have; `conforma --help` explains them.
	for _, name := range []string{"insecure-registry", "registry-mirror", "registry-rate"} {
		add(name, "strings", "", "", aList).Hidden = true
	}
	return root
}

func anything(string) error { return nil }

func aBool(text string) error {
	_, err := strconv.ParseBool(text)
	return err
}

func anInt(text string) error {
	_, err := strconv.ParseInt(text, 0, 64)
	return err
}

func aFloat(text string) error {
	_, err := strconv.ParseFloat(text, 64)
	return err
}

func aDuration(text string) error {
	_, err := time.ParseDuration(text)
	return err
}

func aList(text string) error {
	if text == "" {
		return nil
	}
	_, err := csv.NewReader(strings.NewReader(text)).Read()
	return err
}
