// Package shown is what a client shows a server, as the environment says: TLS_CA names the
// authorities of the server, and without it there is no TLS. TLS_CERT and TLS_KEY name the
// client's certificate, and TOKEN_FILE a token that goes with each call.
package shown

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Options are those of a channel.
func Options() ([]grpc.DialOption, error) {
	transport, err := transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if file := os.Getenv("TOKEN_FILE"); file != "" {
		options = append(options, grpc.WithPerRPCCredentials(token(file)))
	}
	return options, nil
}

func transport() (credentials.TransportCredentials, error) {
	ca := os.Getenv("TLS_CA")
	if ca == "" {
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	if cert := os.Getenv("TLS_CERT"); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv("TLS_KEY"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}

// token is a file that is read for each call, because tokens are renewed.
type token string

func (file token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, err := os.ReadFile(string(file))
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(text))}, err
}

// RequireTransportSecurity has grpc-go refuse to send a token in plain text.
func (token) RequireTransportSecurity() bool { return true }
