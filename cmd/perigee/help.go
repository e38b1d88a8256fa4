package main

import (
	"github.com/spf13/cobra"
)

// usageTemplate is cobra's, with the examples moved to the end, where who has
// called --help is left with something to type. Our commands have no aliases,
// groups and help topics.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}
`

// addCobraExamples gives an example to the commands that cobra adds by itself.
func addCobraExamples(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Short = "show the help of a command"
			c.Example = "  perigee help zone diff"
		case "completion":
			c.Short = "print a completion script for a shell"
			c.Example = "  perigee completion bash > /etc/bash_completion.d/perigee"
			for _, shell := range c.Commands() {
				shell.Short = "print the completion script for " + shell.Name()
				shell.Example = "  perigee completion " + shell.Name()
			}
		}
	}
}
