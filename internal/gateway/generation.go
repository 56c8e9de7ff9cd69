package gateway

import (
	"fmt"
	"os"
)

// replaceFile writes a file in one step: a reader finds the old content or the new
// one. It does not wait for the disk: the file is worth nothing after a power cut. One
// caller at a time.
func replaceFile(path string, content []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fmt.Errorf("write what the engines have made: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write what the engines have made: %w", err)
	}
	return nil
}

// fileOrNothing is the content of a file that need not be there.
func fileOrNothing(path string) []byte {
	b, err := os.ReadFile(path) //nolint:gosec // a file of state_dir
	if err != nil {
		return nil // the usual speed is charged then
	}
	return b
}
