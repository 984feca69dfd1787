package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"ml.dwcp.io/dwcpml"
	"ml.dwcp.io/dwcpml/internal/target"
)

// Client calls the Go client, or runs the models in the process.
type Client struct {
	models target.Models
	model  string
	bodies [][][]float64
}

// NewClient returns a sender that shares models with others; bodies are the instances of each request.
func NewClient(models target.Models, model string, bodies [][][]float64) *Client {
	return &Client{models, model, bodies}
}

// Instances reads {"instances": […]} and flattens each instance.
func Instances(body []byte) ([][]float64, error) {
	var read struct {
		Instances []json.RawMessage `json:"instances"`
	}
	if err := json.Unmarshal(body, &read); err != nil || len(read.Instances) == 0 {
		return nil, errors.New(`it is not {"instances": […]}`)
	}
	instances := make([][]float64, len(read.Instances))
	for at, instance := range read.Instances {
		// The client takes an instance as one row of numbers, whatever its nesting.
		flat := append(append([]byte{'['}, bytes.Map(withoutBrackets, instance)...), ']')
		if err := json.Unmarshal(flat, &instances[at]); err != nil {
			return nil, fmt.Errorf("instance %d is not numbers: %w", at, err)
		}
	}
	return instances, nil
}

func withoutBrackets(letter rune) rune {
	if letter == '[' || letter == ']' {
		return -1
	}
	return letter
}

// Send implements [Sender].
func (c *Client) Send(ctx context.Context, number uint64) string {
	_, err := c.models.Infer(ctx, c.model, c.bodies[number%uint64(len(c.bodies))])
	var problem *dwcpml.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &problem) && problem.Code != 0:
		return strconv.Itoa(problem.Code)
	case errors.Is(err, dwcpml.ErrTimeout):
		return "timeout"
	case errors.Is(err, dwcpml.ErrInvalidInput):
		return "invalid_input"
	case errors.Is(err, dwcpml.ErrUnavailable):
		return "unavailable"
	default:
		return "other"
	}
}

// Close does nothing: the models are shared, and closed by who opened them.
func (c *Client) Close() error { return nil }
