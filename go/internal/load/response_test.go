package load

import (
	"bufio"
	"strings"
	"testing"
)

func TestResponsesFollowEachOther(t *testing.T) {
	stream := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello" +
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n" +
		"HTTP/1.1 204 No Content\r\n\r\n" +
		"HTTP/1.1 200 OK\r\ncontent-length:0\r\nConnection: close\r\n\r\n"
	reader := bufio.NewReader(strings.NewReader(stream))
	for at, want := range []struct {
		status int
		keep   bool
	}{{200, true}, {503, true}, {204, true}, {200, false}} {
		status, keep, err := readResponse(reader)
		if err != nil || status != want.status || keep != want.keep {
			t.Fatalf("response %d: got %d, %v, %v", at, status, keep, err)
		}
	}
	if reader.Buffered() != 0 {
		t.Fatalf("%d bytes are left", reader.Buffered())
	}
}

func TestResponsesThatCannotBeRead(t *testing.T) {
	for _, text := range []string{
		"", "HTTP/1.1", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK\r\n",
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
	} {
		if status, _, err := readResponse(bufio.NewReader(strings.NewReader(text))); err == nil {
			t.Errorf("%q was read as %d", text, status)
		}
	}
}
