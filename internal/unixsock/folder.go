package unixsock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrOpenFolder means that other users could reach into the folder.
var ErrOpenFolder = errors.New("other users can reach into it")

// Folder makes a folder for sockets, for its owner only (0700). One that is there
// must be so already, and belong to who runs this: whoever else can write there
// puts a socket of his own in the place of one of ours and answers for it, and an
// existing folder of another mode was made by somebody who did not know that. It
// is not mended: what lies in it may be somebody's already. Otherwise
// [ErrOpenFolder], with what to do.
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
