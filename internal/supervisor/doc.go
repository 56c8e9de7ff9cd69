// Package supervisor keeps one child process running: it starts the child, checks that
// it is ready and alive, stops it in steps, restarts it with backoff, and makes sure
// that no process of it is left.
//
// The unit is the family, not the process: all processes that came from one start.
// Every [Child] leads its own group, so a Ctrl-C on the terminal does not reach it.
// When the leader ends, for any reason, the rest of the family is killed, whatever
// group, session or parent its processes have by then: an inference server that dies
// leaves workers behind that hold the GPU and the port. [Guard] does the same when the
// launcher itself is killed.
package supervisor
