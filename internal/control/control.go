// Package control is the control API (HTTP and JSON), its client, and the
// keys of the fleet: the node CA, node credentials and the admin token.
package control
