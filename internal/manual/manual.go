// Package manual writes the manual pages of a program from the help texts of its
// commands, so that neither says what the other does not.
package manual

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Command makes the command that writes the pages of the program that it is
// added to, one for each command, in section 1.
func Command() *cobra.Command {
	c := &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages of this program into a directory",
		Long: `Write the manual pages of this program, one for each command, into a directory,
which is made if it is missing. SOURCE_DATE_EPOCH, if it is set, is their date.`,
		Args: cobra.ExactArgs(1),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := write(cmd.Root(), args[0])
		if err != nil {
			return err
		}
		if asJSON, err := cmd.Flags().GetBool("json"); err == nil && asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"dir": args[0], "pages": n})
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d pages in %s\n", n, args[0])
		return nil
	}
	return c
}

// WithExample gives the command the example that names the program.
func WithExample(program string) *cobra.Command {
	c := Command()
	c.Example = fmt.Sprintf("  %s man /usr/local/share/man/man1", program)
	return c
}

// write writes the pages and tells how many there are.
func write(root *cobra.Command, dir string) (int, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: strings.TrimSpace(root.Name() + " " + root.Version), Manual: "Joinery"}
	if os.Getenv("SOURCE_DATE_EPOCH") == "" {
		now := time.Now()
		header.Date = &now
	}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return 0, err
	}
	pages, err := os.ReadDir(dir)
	return len(pages), err
}
