// Dwcp-load sends requests to a model server for some time and prints a report as JSON.
//
//	dwcp-load -url http://127.0.0.1:8501/v1/models/bandwidth_predictor:predict -body row.json
//	dwcp-load -mode client -address grpc://127.0.0.1:8502 -model bandwidth_predictor -body row.json
//
// Without -rate, each connection sends its next request after the response to the last one. With -rate,
// requests are sent at fixed times, from which their latency is measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"ml.dwcp.io/dwcpml/internal/load"
	"ml.dwcp.io/dwcpml/internal/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

type settings struct {
	mode, url, model string
	bodies, headers  []string
	plan             load.Plan
	target           target.Flags
}

func run(ctx context.Context, arguments []string, output, stderr io.Writer) int {
	var chosen settings
	flags := flag.NewFlagSet("dwcp-load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	chosen.define(flags)
	if err := flags.Parse(arguments); err != nil {
		return 2
	}
	if err := chosen.check(flags.NArg()); err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 2
	}
	report, err := chosen.send(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 1
	}
	encoder := json.NewEncoder(output)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil {
		fmt.Fprintf(stderr, "%s.\n", err)
		return 1
	}
	if report.Good == 0 {
		fmt.Fprintln(stderr, "No request succeeded.")
		return 1
	}
	return 0
}

func (s *settings) define(flags *flag.FlagSet) {
	flags.StringVar(&s.mode, "mode", "raw", "raw (prebuilt bytes over TCP) or client (the Go client)")
	flags.StringVar(&s.url, "url", "", "raw: `URL` to post to, http only")
	flags.StringVar(&s.model, "model", "", "client: full `name` of the model")
	appendTo(flags, &s.bodies, "body", "`file` of a request body, {\"instances\": […]}; give it again for more, used in turn")
	appendTo(flags, &s.headers, "header", "raw: a header, `Name: value`; give it again for more")
	flags.IntVar(&s.plan.Connections, "connections", 1, "requests under way at once")
	flags.Float64Var(&s.plan.Rate, "rate", 0, "requests a second in total; 0 is as fast as the server responds")
	flags.DurationVar(&s.plan.Duration, "duration", 10*time.Second, "time in which requests are counted")
	flags.DurationVar(&s.plan.Warmup, "warmup", 0, "time before it, not counted")
	s.target.Add(flags)
}

func appendTo(flags *flag.FlagSet, values *[]string, name, usage string) {
	flags.Func(name, usage, func(value string) error {
		*values = append(*values, value)
		return nil
	})
}

func (s *settings) check(arguments int) error {
	switch {
	case arguments > 0:
		return errors.New("there are flags only, no arguments")
	case s.mode != "raw" && s.mode != "client":
		return fmt.Errorf("there is no mode %q; it is raw or client", s.mode)
	case s.mode == "raw" && s.url == "":
		return errors.New("raw needs -url")
	case s.mode == "client" && s.model == "":
		return errors.New("client needs -model")
	case len(s.bodies) == 0:
		return errors.New("name at least one -body")
	case s.plan.Connections < 1 || s.plan.Duration <= 0 || s.plan.Warmup < 0 || s.plan.Rate < 0 || s.target.Timeout <= 0:
		return errors.New("-connections, -duration and -timeout must be above 0, -rate and -warmup not below")
	}
	return nil
}

func (s *settings) send(ctx context.Context) (report load.Report, err error) {
	bodies := make([][]byte, len(s.bodies))
	for at, path := range s.bodies {
		if bodies[at], err = os.ReadFile(path); err != nil {
			return report, err
		}
	}
	senders := make([]load.Sender, s.plan.Connections)
	if s.mode == "raw" {
		address, requests, err := load.RawRequests(s.url, s.headers, bodies)
		if err != nil {
			return report, err
		}
		for at := range senders {
			senders[at] = load.NewRaw(address, s.target.Timeout, requests)
		}
	} else {
		models, instances, err := s.open(bodies)
		if err != nil {
			return report, err
		}
		defer models.Close()
		for at := range senders {
			senders[at] = load.NewClient(models, s.model, instances)
		}
	}
	s.plan.Grace = s.target.Timeout
	report = load.Run(ctx, s.plan, senders)
	for _, sender := range senders {
		err = errors.Join(err, sender.Close())
	}
	return report, err
}

func (s *settings) open(bodies [][]byte) (target.Models, [][][]float64, error) {
	instances := make([][][]float64, len(bodies))
	for at, body := range bodies {
		read, err := load.Instances(body)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", s.bodies[at], err)
		}
		instances[at] = read
	}
	models, err := s.target.Open(s.plan.Connections)
	return models, instances, err
}
