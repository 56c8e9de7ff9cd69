package unixsock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrOpenFolder means that other users could reach into the folder.
var ErrOpenFolder = errors.New("other users can reach into it")

// Folder makes a folder for sockets that only its owner can enter (0700). A folder that
// exists must have this mode and belong to the user of this process, otherwise Folder
// fails with [ErrOpenFolder] and says what to do: another user who can write there
// could replace a socket and answer in our place. Folder does not change the mode,
// because a foreign socket may lie there already.
func Folder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make folder of sockets: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at folder of sockets: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o: %w; look what is in it, then: chmod 700 %s", path, mode, ErrOpenFolder, path)
	}
	if own, ok := info.Sys().(*syscall.Stat_t); ok && int(own.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: %w; run as that user, or name another state_dir", path, own.Uid, ErrOpenFolder)
	}
	return nil
}
