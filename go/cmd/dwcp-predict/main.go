// Dwcp-predict sends the rows of a JSON-lines file to models and writes all outputs, in the
// order of the rows:
//
//	{"model": "reliability_detector", "features": [99.2, 1.5, 0.02, 40, 3.1, 85]}
//	{"model":"reliability_detector","prediction":{"anomaly_score":0.75,"is_anomaly":true}}
//
// Each float32 is written in the fewest digits that read back as the same float32. A row without an
// prediction has "error" in its place, and the exit status is 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"ml.dwcp.io/dwcpml/internal/predict"
	"ml.dwcp.io/dwcpml/internal/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

type settings struct {
	target         target.Flags
	input, output  string
	workers, batch int
}

func run(ctx context.Context, arguments []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var chosen settings
	flags := flag.NewFlagSet("dwcp-predict", flag.ContinueOnError)
	flags.SetOutput(stderr)
	chosen.target.Add(flags)
	flags.StringVar(&chosen.input, "input", "-", "`file` of rows; - is standard input")
	flags.StringVar(&chosen.output, "output", "-", "`file` for the predictions, written as a whole or not at all; - is standard output")
	flags.IntVar(&chosen.workers, "workers", 8, "requests at once")
	flags.IntVar(&chosen.batch, "batch", 1, "rows a request at most; rows of one model that follow each other")
	if err := flags.Parse(arguments); err != nil {
		return 2
	}
	if flags.NArg() > 0 || chosen.workers < 1 || chosen.batch < 1 {
		fmt.Fprintln(stderr, "-workers and -batch must be above 0, and there are no other arguments.")
		return 2
	}
	counts, err := chosen.predict(ctx, stdin, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 1
	}
	if counts.Failed > 0 {
		fmt.Fprintf(stderr, "%d of %d rows have no prediction; their lines say why.\n", counts.Failed, counts.Rows)
		return 1
	}
	return 0
}

func (s *settings) predict(ctx context.Context, stdin io.Reader, stdout io.Writer) (counts predict.Counts, err error) {
	models, err := s.target.Open(s.workers)
	if err != nil {
		return counts, err
	}
	defer func() { err = errors.Join(err, models.Close()) }()
	if s.input != "-" {
		file, err := os.Open(s.input)
		if err != nil {
			return counts, err
		}
		defer file.Close()
		stdin = file
	}
	if s.output == "-" {
		return predict.Stream(ctx, models, stdin, stdout, s.workers, s.batch)
	}
	err = writeWhole(s.output, func(file io.Writer) error {
		counts, err = predict.Stream(ctx, models, stdin, file, s.workers, s.batch)
		return err
	})
	return counts, err
}

// writeWhole gives a file its name when all of it is written.
func writeWhole(path string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(write(file), file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
