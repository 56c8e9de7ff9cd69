// Package supervisor keeps one child process running: start, readiness,
// liveness, the ladder of a stop, restart with backoff, and the certainty that
// nothing of it is left.
//
// The unit is the family, not the process: all that has come of one start. Every
// [Child] leads its own group, so a terminal's Ctrl-C does not reach it, and
// whenever its leader is gone, for whatever reason, the rest of the family is
// killed, in whatever group, session or place of the tree it is by then: an
// inference server that dies leaves workers behind that hold the GPU and the
// port. What happens when the launcher itself is killed is the business of
// [Guard].
package supervisor
