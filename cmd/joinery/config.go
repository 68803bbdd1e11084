package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"joinery/internal/config"
)

func newConfig() *cobra.Command {
	return group(&cobra.Command{
		Use:   "config",
		Short: "Print or check a configuration",
	}, newConfigPrint(), newConfigCheck())
}

func newConfigPrint() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print a complete configuration with its documentation",
		Long: `Prints every key with its documentation and its value: of the file given with
--config, else the defaults. The output is itself a configuration; it names the
environment variables that a server takes in place of some of its values.`,
		Example: `  joinery config print > joinery.yaml
  joinery config print --config /etc/joinery/joinery.yaml`,
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := config.Default()
		if cmd.Flags().Changed("config") {
			var err error
			if c, err = config.Read(*path); err != nil {
				return err
			}
		}
		return config.Print(cmd.OutOrStdout(), c)
	}
	return cmd
}

func newConfigCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration and the files that it names",
		Long: `Checks every value and every file that the configuration names: that it is
there, that nobody else can read it where it is secret, that the certificate
belongs to its key and is valid. It opens neither the database nor the key file.`,
		Example: `  joinery config check --config /etc/joinery/joinery.yaml`,
		Args:    cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return err
		}
		if err := c.CheckFiles(time.Now()); err != nil {
			return fmt.Errorf("configuration %s:\n%w", *path, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: in order\n", *path)
		return nil
	}
	return cmd
}
