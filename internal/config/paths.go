package config

import "path/filepath"

// Names of the sockets and files in run/, relative to state_dir: Envoy's working
// directory is state_dir, because it refuses paths of sockets above 107 bytes.
const (
	GRPCSocket       = "run/grpc.sock"        // Check, Process, access log, engines for Envoy
	HTTPSocket       = "run/http.sock"        // tollgate's own pages, for Envoy
	AdminSocket      = "run/admin.sock"       // the same pages for commands on this host: no key, the folder is the door
	MeterSocket      = "run/meter.sock"       // the link of the meter inside Envoy, which dials
	EnvoyAdminSocket = "run/envoy-admin.sock" // Envoy's own pages
	LauncherSocket   = "run/launcher.sock"    // the launcher's control API
	EnginesFile      = "engines.json"         // engines that came at run time
	BootstrapFile    = "run/envoy.yaml"
	SecretsFile      = "run/envoy-secrets.yaml" // where the edge's certificate is
	// Where Envoy's own certificate towards a tollgate on another host is, and the
	// authority of that tollgate's.
	ServiceCertificateFile = "run/envoy-service-certificate.yaml"
	ServiceAuthorityFile   = "run/envoy-service-authority.yaml"
)

// RunDir is the folder of the sockets.
func (c *Config) RunDir() string { return c.InState("run") }

// InState is the path of a file of state_dir.
func (c *Config) InState(name string) string { return filepath.Join(c.StateDir, name) }

// KeysPath is the file that this host reads its keys from: the key file, or the
// copy of keys that live in the central ledger's database.
func (c *Config) KeysPath() string {
	if c.Central.Keys {
		return c.InState("keys.json")
	}
	return c.Auth.APIKeysFile
}
