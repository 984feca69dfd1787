package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

var errMalformed = errors.New("malformed")

// readResponse reads one whole HTTP/1.1 response and drops its body. It knows what an inference
// server sends: Content-Length and chunks. keep says whether the connection may be used again.
func readResponse(reader *bufio.Reader) (status int, keep bool, err error) {
	for {
		line, err := readLine(reader)
		if err != nil {
			return 0, false, err
		}
		if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
			return 0, false, fmt.Errorf("%w status line", errMalformed)
		}
		status, err = strconv.Atoi(string(line[9:12]))
		if err != nil || status < 100 {
			return 0, false, fmt.Errorf("%w status", errMalformed)
		}
		keep = line[7] == '1'
		length, chunked, err := readHeaders(reader, &keep)
		switch {
		case err != nil:
			return status, false, err
		case status < 200: // an interim response; the final one follows
			continue
		case status == 204 || status == 304:
			return status, keep, nil
		case chunked:
			return status, keep, dropChunks(reader)
		case length < 0:
			return status, false, fmt.Errorf("%w: neither Content-Length nor chunks", errMalformed)
		default:
			_, err = reader.Discard(length)
			return status, keep, err
		}
	}
}

// readHeaders returns the length of the body, -1 if it is not given.
func readHeaders(reader *bufio.Reader, keep *bool) (length int, chunked bool, err error) {
	length = -1
	for {
		line, err := readLine(reader)
		if err != nil || len(line) == 0 {
			return length, chunked, err
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			return 0, false, fmt.Errorf("%w header", errMalformed)
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			length, err = strconv.Atoi(string(value))
			if err != nil || length < 0 {
				return 0, false, fmt.Errorf("%w Content-Length", errMalformed)
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			*keep = !bytes.EqualFold(value, []byte("close"))
		}
	}
}

func dropChunks(reader *bufio.Reader) error {
	for {
		line, err := readLine(reader)
		if err != nil {
			return err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 31)
		if err != nil {
			return fmt.Errorf("%w chunk", errMalformed)
		}
		if size == 0 {
			break
		}
		if _, err := reader.Discard(int(size) + 2); err != nil {
			return err
		}
	}
	for { // trailers
		line, err := readLine(reader)
		if err != nil || len(line) == 0 {
			return err
		}
	}
}

// readLine returns a line without its end; it is good until the next read.
func readLine(reader *bufio.Reader) ([]byte, error) {
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
