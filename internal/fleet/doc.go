// Package fleet knows the engines: which there are, which are ready, what each
// serves and how much waits there.
//
// Engines come from the configuration file, from administrators and from launchers
// on other hosts. Each is asked every second for its health, its models and its
// counters, and never sent work, which would cost tokens. An engine is known to
// requests by its endpoint, an address with an IP: a name that leads to several
// addresses is several engines.
//
// What requests read is a [View]: it never changes, and reading it takes no lock.
package fleet
