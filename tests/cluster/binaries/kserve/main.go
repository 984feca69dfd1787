// Command kserve-manager runs KServe's own controller of InferenceServices and its own webhooks:
// as a process on the loopback interface, with certificates where the tests keep them, or in the pod
// of KServe's own manifest, whose arguments it understands. What KServe 0.20 does not do yet stands
// in weights.go; controllers of other kinds than InferenceService are left out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kserve/kserve/pkg/apis/serving/v1beta1"
	"github.com/kserve/kserve/pkg/controller/v1beta1/inferenceservice"
	"github.com/kserve/kserve/pkg/scheme"
	"github.com/kserve/kserve/pkg/webhook/admission/pod"
	"github.com/kserve/kserve/pkg/webhook/admission/servingruntime"
)

// The name of KServe's own lease.
const leaderLock = "kserve-controller-manager-leader-lock"

func main() {
	given := arguments{}
	flag.StringVar(&given.host, "webhook-host", "", "address that the webhooks listen on; all if empty")
	flag.IntVar(&given.port, "webhook-port", 9443, "port that the webhooks listen on")
	flag.StringVar(&given.certificates, "certificates", "/tmp/k8s-webhook-server/serving-certs",
		"directory of tls.crt and tls.key")
	flag.StringVar(&given.metrics, "metrics-addr", "0", "address of the metrics; 0 for none")
	flag.StringVar(&given.probes, "health-probe-addr", ":8081", "address of the probes; 0 for none")
	flag.DurationVar(&given.gap, "route-gap", 100*time.Millisecond,
		"time between the writes of a service's two routes")
	flag.BoolVar(&given.elect, "leader-elect", false, "be one of several, of which one works")
	log := zap.Options{}
	log.BindFlags(flag.CommandLine)
	flag.Parse() // --kubeconfig is controller-runtime's own
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&log)))
	if err := run(given); err != nil {
		fmt.Fprintf(os.Stderr, "kserve-manager: %v\n", err)
		os.Exit(1)
	}
}

type arguments struct {
	host, certificates, metrics, probes string
	port                                int
	elect                               bool
	gap                                 time.Duration
}

func run(given arguments) error {
	stopped := ctrl.SetupSignalHandler()
	held := newGate()
	go held.follow()
	settings, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(settings)
	if err != nil {
		return err
	}
	watched, err := inferenceservice.NewCacheOptions()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(settings, ctrl.Options{
		Cache:                  watched,
		Metrics:                metricsserver.Options{BindAddress: given.metrics},
		HealthProbeBindAddress: given.probes,
		LeaderElection:         given.elect,
		LeaderElectionID:       leaderLock,
		WebhookServer: webhook.NewServer(webhook.Options{
			Host:    given.host,
			Port:    given.port,
			CertDir: given.certificates,
		}),
	})
	if err != nil {
		return err
	}
	if err := scheme.AddAll(manager.GetScheme()); err != nil {
		return err
	}
	client := &weighted{Client: manager.GetClient(), held: held, gap: given.gap}
	if err := addController(stopped, manager, clients, client); err != nil {
		return err
	}
	if err := addWebhooks(manager, clients); err != nil {
		return err
	}
	if err := manager.AddHealthzCheck("healthz", healthz.Ping); err != nil {
		return err
	}
	if err := manager.AddReadyzCheck("readyz", manager.GetWebhookServer().StartedChecker()); err != nil {
		return err
	}
	return manager.Start(stopped)
}

func addController(
	ctx context.Context, manager ctrl.Manager, clients kubernetes.Interface, client *weighted,
) error {
	stored, err := v1beta1.GetInferenceServiceConfigMap(ctx, clients)
	if err != nil {
		return err
	}
	deploy, err := v1beta1.NewDeployConfig(stored)
	if err != nil {
		return err
	}
	ingress, err := v1beta1.NewIngressConfig(stored)
	if err != nil {
		return err
	}
	if _, err := v1beta1.NewMultiNodeConfig(stored); err != nil {
		return err
	}
	events := record.NewBroadcaster()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clients.CoreV1().Events("")})
	controller := &inferenceservice.InferenceServiceReconciler{
		Client:    client,
		Clientset: clients,
		Log:       ctrl.Log.WithName("InferenceService"),
		Scheme:    manager.GetScheme(),
		Recorder: events.NewRecorder(
			manager.GetScheme(), corev1.EventSource{Component: "v1beta1Controllers"}),
	}
	return controller.SetupWithManager(manager, deploy, ingress)
}

func addWebhooks(manager ctrl.Manager, clients kubernetes.Interface) error {
	reader, decoder := manager.GetClient(), admission.NewDecoder(manager.GetScheme())
	handlers := map[string]admission.Handler{
		"/mutate-pods": &pod.Mutator{Client: reader, Clientset: clients, Decoder: decoder},
		"/validate-serving-kserve-io-v1alpha1-servingruntime": &servingruntime.ServingRuntimeValidator{
			Client: reader, Decoder: decoder,
		},
		"/validate-serving-kserve-io-v1alpha1-clusterservingruntime": &servingruntime.ClusterServingRuntimeValidator{
			Client: reader, Decoder: decoder,
		},
	}
	for path, handler := range handlers {
		manager.GetWebhookServer().Register(path, &webhook.Admission{Handler: handler})
	}
	return ctrl.NewWebhookManagedBy(manager).
		For(&v1beta1.InferenceService{}).
		WithDefaulter(&v1beta1.InferenceServiceDefaulter{}).
		WithValidator(&v1beta1.InferenceServiceValidator{}).
		Complete()
}

// gate holds the controller, not the webhooks, from SIGUSR1 to SIGUSR2.
type gate struct {
	turn chan struct{}
}

func newGate() *gate {
	held := &gate{turn: make(chan struct{}, 1)}
	held.turn <- struct{}{}
	return held
}

func (g *gate) follow() {
	told := make(chan os.Signal, 4)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGUSR2)
	paused := false
	for what := range told {
		switch {
		case what == syscall.SIGUSR1 && !paused:
			<-g.turn
			paused = true
			fmt.Fprintln(os.Stderr, "controller paused")
		case what == syscall.SIGUSR2 && paused:
			g.turn <- struct{}{}
			paused = false
			fmt.Fprintln(os.Stderr, "controller resumed")
		}
	}
}

// pass returns when the gate is open.
func (g *gate) pass(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-g.turn:
		g.turn <- struct{}{}
		return nil
	}
}
