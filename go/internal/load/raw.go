package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Raw posts fixed bodies over one persistent TCP connection, with the bytes of each request made
// beforehand.
type Raw struct {
	address    string
	timeout    time.Duration
	requests   [][]byte
	connection net.Conn
	reader     *bufio.Reader
}

// RawRequests returns the bytes of a POST of each body, and the address to send them to.
func RawRequests(target string, headers []string, bodies [][]byte) (address string, requests [][]byte, err error) {
	parsed, err := url.Parse(target)
	if err != nil || parsed.Scheme != "http" || parsed.Host == "" {
		return "", nil, fmt.Errorf("%q is not http://host:port/path", target)
	}
	address = parsed.Host
	if parsed.Port() == "" {
		address = net.JoinHostPort(parsed.Hostname(), "80")
	}
	for _, body := range bodies {
		var request bytes.Buffer
		fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n",
			parsed.RequestURI(), parsed.Host, len(body))
		for _, header := range headers {
			if name, _, found := strings.Cut(header, ":"); !found || name == "" || strings.ContainsAny(header, "\r\n") {
				return "", nil, fmt.Errorf("%q is not a header, Name: value", header)
			}
			request.WriteString(header + "\r\n")
		}
		request.WriteString("\r\n")
		request.Write(body)
		requests = append(requests, request.Bytes())
	}
	return address, requests, nil
}

// NewRaw returns a sender; it connects at its first request, and again after a failure.
func NewRaw(address string, timeout time.Duration, requests [][]byte) *Raw {
	return &Raw{address: address, timeout: timeout, requests: requests}
}

// Send implements [Sender].
func (r *Raw) Send(_ context.Context, number uint64) string {
	deadline := time.Now().Add(r.timeout)
	if r.connection == nil {
		connection, err := net.DialTimeout("tcp", r.address, r.timeout)
		if err != nil {
			sleep(10 * time.Millisecond) // a server that is gone is not hammered
			return "connect"
		}
		r.connection = connection
		r.reader = bufio.NewReaderSize(connection, 16<<10)
	}
	if err := r.connection.SetDeadline(deadline); err != nil {
		return r.broken("connection", err)
	}
	if _, err := r.connection.Write(r.requests[number%uint64(len(r.requests))]); err != nil {
		return r.broken("write", err)
	}
	status, keep, err := readResponse(r.reader)
	if err != nil {
		return r.broken("read", err)
	}
	if !keep {
		_ = r.Close()
	}
	if status < 200 || status > 299 {
		return strconv.Itoa(status)
	}
	return ""
}

func (r *Raw) broken(code string, err error) string {
	_ = r.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "timeout"
	}
	return code
}

// Close closes the connection; the next request opens another one.
func (r *Raw) Close() error {
	if r.connection == nil {
		return nil
	}
	err := r.connection.Close()
	r.connection = nil
	return err
}
