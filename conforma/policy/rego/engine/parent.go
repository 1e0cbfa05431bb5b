// The end of this process: it must not outlive the one that started it.
//
// The end of stdin tells it at once. A process forked from the parent may hold
// the other end of that pipe, so the parent's id is watched as well. (The
// kernel's death signal follows the thread that started us, which may end
// long before its process, and is no use here.)
package main

import (
	"os"
	"time"
)

func endWithParent(every time.Duration) {
	parent := os.Getppid()
	go func() {
		for range time.Tick(every) {
			if os.Getppid() != parent {
				os.Exit(0)
			}
		}
	}()
}
