// Package predict sends the rows of a JSON-lines stream to models, several at once, and writes one
// line for each row in the order of the rows.
package predict

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"ml.dwcp.io/dwcpml"
	"ml.dwcp.io/dwcpml/internal/target"
)

const longestLine = 1 << 20

// Row is a line of the input: the full name of a model, and its whole input, row by row.
type Row struct {
	Model    string    `json:"model"`
	Features []float64 `json:"features"`
}

// Line is a line of the output: the prediction for a row, or an error.
type Line struct {
	Model      string            `json:"model"`
	Prediction dwcpml.Prediction `json:"prediction,omitempty"`
	Error      string            `json:"error,omitempty"`
}

// Counts are the rows that were read, and those among them without a prediction.
type Counts struct {
	Rows, Failed int
}

// request is some rows of one model that follow each other, sent together.
type request struct {
	model     string
	instances [][]float64
	lines     []Line
	done      chan struct{}
}

// Stream predicts the rows of input. Up to workers requests of up to batch rows are in progress at a
// time, and little more than that is held in memory. It stops at a line that is no row, and when the
// output can't be written.
func Stream(
	ctx context.Context, models target.Models, input io.Reader, output io.Writer, workers, batch int,
) (Counts, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan *request)
	ordered := make(chan *request, 2*workers)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for one := range work {
				one.predict(ctx, models)
				close(one.done)
			}
		})
	}
	var reading error
	go func() {
		defer close(ordered)
		defer close(work)
		reading = read(input, batch, func(one *request) bool {
			select {
			case ordered <- one:
			case <-ctx.Done():
				return false
			}
			work <- one
			return true
		})
	}()
	counts, err := write(ordered, output)
	cancel()
	for range ordered { // drain what is still in progress
	}
	group.Wait()
	if err == nil {
		err = reading
	}
	return counts, err
}

// read groups rows of one model that follow each other and hands them on until hand says no.
func read(input io.Reader, batch int, hand func(*request) bool) error {
	scanner := bufio.NewScanner(input)
	scanner.Buffer(nil, longestLine)
	var open *request
	for number := 1; scanner.Scan(); number++ {
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		var row Row
		if err := json.Unmarshal(scanner.Bytes(), &row); err != nil {
			return fmt.Errorf("line %d is no row: %w", number, err)
		}
		if open != nil && (open.model != row.Model || len(open.instances) == batch) {
			if !hand(open) {
				return nil
			}
			open = nil
		}
		if open == nil {
			open = &request{model: row.Model, done: make(chan struct{})}
		}
		open.instances = append(open.instances, row.Features)
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("the rows can't be read: %w", err)
	}
	if open != nil {
		hand(open)
	}
	return nil
}

// predict fills the lines; an error is that of each row of the request.
func (r *request) predict(ctx context.Context, models target.Models) {
	predictions, err := models.Infer(ctx, r.model, r.instances)
	r.lines = make([]Line, len(r.instances))
	for at := range r.lines {
		r.lines[at].Model = r.model
		if err != nil {
			r.lines[at].Error = err.Error()
		} else {
			r.lines[at].Prediction = predictions[at]
		}
	}
}

func write(ordered <-chan *request, output io.Writer) (Counts, error) {
	var counts Counts
	buffered := bufio.NewWriter(output)
	encoder := json.NewEncoder(buffered)
	for one := range ordered {
		<-one.done
		for _, line := range one.lines {
			counts.Rows++
			if line.Error != "" {
				counts.Failed++
			}
			if err := encoder.Encode(line); err != nil {
				return counts, fmt.Errorf("the predictions can't be written: %w", err)
			}
		}
	}
	if err := buffered.Flush(); err != nil {
		return counts, fmt.Errorf("the predictions can't be written: %w", err)
	}
	return counts, nil
}
