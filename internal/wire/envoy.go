package wire

// This file reads messages that several of Envoy's services share.

// Field numbers of envoy.config.core.v3.
const (
	mapHeader   = 1 // HeaderMap
	headerKey   = 1 // HeaderValue
	headerText  = 2
	headerRaw   = 3
	socketWhere = 1 // Address.socket_address
	addressLast = 3 // the last of an Address's kinds
	socketHost  = 2 // SocketAddress.address
)

// Headers calls each for every header of an envoy.config.core.v3.HeaderMap, with
// the raw value where there is one.
func Headers(message []byte, each func(name, value []byte)) error {
	return Each(message, func(f Field) error {
		if f.Num != mapHeader {
			return nil
		}
		name, value, err := header(f.Bytes)
		if err == nil {
			each(name, value)
		}
		return err
	})
}

// header reads a HeaderValue.
func header(message []byte) (name, value []byte, err error) {
	var raw []byte
	err = Each(message, func(f Field) error {
		switch f.Num {
		case headerKey:
			name = f.Bytes
		case headerText:
			value = f.Bytes
		case headerRaw:
			raw = f.Bytes
		}
		return nil
	})
	if len(raw) > 0 {
		value = raw
	}
	return name, value, err
}

// SocketAddress reads the host of an envoy.config.core.v3.Address; empty where
// the address is of another kind (a Unix socket).
func SocketAddress(message []byte) (host []byte, err error) {
	err = Each(message, func(f Field) error {
		switch {
		case f.Num == socketWhere:
			return Each(f.Bytes, func(f Field) error {
				if f.Num == socketHost {
					host = f.Bytes
				}
				return nil
			})
		case f.Num <= addressLast: // an Address may repeat its kind; the last one counts
			host = nil
		}
		return nil
	})
	return host, err
}
