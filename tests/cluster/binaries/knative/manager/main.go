// Command knative-manager runs Knative Serving's own controllers, its autoscaler (KPA) and its
// webhooks of resources in one process on the loopback interface: each of Knative's own programs
// listens on every address.
//
// Pods are simulated, so two things differ. Nobody asks a pod's queue-proxy for its requests: the
// autoscaler reads that a ready pod has none (quietScraper). And no activator is asked whether it is
// in the path of a revision: the setting target-burst-capacity has to say that it always is.
// Controllers of DomainMappings and certificates are left out, and the webhook of ConfigMaps.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"

	kubeclient "knative.dev/pkg/client/injection/kube/client"
	filteredpodinformer "knative.dev/pkg/client/injection/kube/informers/core/v1/pod/filtered"
	filteredinformerfactory "knative.dev/pkg/client/injection/kube/informers/factory/filtered"
	"knative.dev/pkg/configmap"
	cminformer "knative.dev/pkg/configmap/informer"
	"knative.dev/pkg/controller"
	"knative.dev/pkg/injection"
	"knative.dev/pkg/logging"
	"knative.dev/pkg/signals"
	"knative.dev/pkg/system"
	"knative.dev/pkg/webhook"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/apis/serving"
	asmetrics "knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/autoscaler/scaling"
	"knative.dev/serving/pkg/reconciler/autoscaling/kpa"
	"knative.dev/serving/pkg/reconciler/configuration"
	"knative.dev/serving/pkg/reconciler/gc"
	"knative.dev/serving/pkg/reconciler/labeler"
	servingmetric "knative.dev/serving/pkg/reconciler/metric"
	"knative.dev/serving/pkg/reconciler/revision"
	"knative.dev/serving/pkg/reconciler/route"
	"knative.dev/serving/pkg/reconciler/serverlessservice"
	"knative.dev/serving/pkg/reconciler/service"
	"knative.dev/serving/pkg/resources"
)

// The namespace of Knative's settings.
const namespace = "knative-serving"

func main() {
	given := arguments{}
	flag.StringVar(&given.webhooks, "webhook-addr", "127.0.0.1:8443", "address of the webhooks")
	flag.StringVar(&given.certificate, "certificate", "tls.crt", "certificate of the webhooks")
	flag.StringVar(&given.key, "key", "tls.key", "key of the certificate")
	os.Setenv(system.NamespaceEnvKey, namespace)
	settings := injection.ParseAndGetRESTConfigOrDie() // parses --kubeconfig and the flags above
	settings.QPS, settings.Burst = 200, 400
	ctx := filteredinformerfactory.WithSelectors(signals.NewContext(), serving.RevisionUID)
	ctx = webhook.WithOptions(ctx, webhook.Options{ServiceName: "webhook"})
	logger, err := newLogger()
	if err != nil {
		log.Fatalf("knative-manager: %v", err)
	}
	ctx = logging.WithLogger(ctx, logger)
	ctx, startInformers := injection.EnableInjectionOrDie(ctx, settings)
	if err := run(ctx, given, startInformers); err != nil {
		log.Fatalf("knative-manager: %v", err)
	}
}

type arguments struct {
	webhooks, certificate, key string
}

func newLogger() (*zap.SugaredLogger, error) {
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(zap.ErrorLevel)
	config.DisableStacktrace = true
	made, err := config.Build()
	if err != nil {
		return nil, err
	}
	return made.Sugar(), nil
}

// run returns when the context is done, or when something has failed.
func run(ctx context.Context, given arguments, startInformers func()) error {
	settings := cminformer.NewInformedWatcher(kubeclient.Get(ctx), system.Namespace())
	controllers := append(scalers(ctx, settings),
		configuration.NewController(ctx, settings),
		labeler.NewController(ctx, settings),
		revision.NewController(ctx, settings),
		route.NewController(ctx, settings),
		serverlessservice.NewController(ctx, settings),
		service.NewController(ctx, settings),
		gc.NewController(ctx, settings),
	)
	// Of these, the reconcilers would write the webhooks' configurations, by Service.
	webhooks, err := webhook.New(ctx, []any{
		defaulter(ctx, settings).Reconciler, validator(ctx, settings).Reconciler,
	})
	if err != nil {
		return err
	}
	if err := settings.Start(ctx.Done()); err != nil {
		return err
	}
	startInformers()
	webhooks.InformersHaveSynced()
	server := &http.Server{
		Addr: given.webhooks, Handler: webhooks, ReadHeaderTimeout: time.Minute,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return controller.StartAll(ctx, controllers...) })
	group.Go(func() error {
		err := server.ListenAndServeTLS(given.certificate, given.key)
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return group.Wait()
}

// scalers returns the controllers of Knative's autoscaler.
func scalers(ctx context.Context, settings configmap.Watcher) []*controller.Impl {
	logger := logging.FromContext(ctx)
	lister := filteredpodinformer.Get(ctx, serving.RevisionUID).Lister()
	collector := asmetrics.NewMetricCollector(
		func(of *autoscalingv1alpha1.Metric, _ *zap.SugaredLogger) (asmetrics.StatsScraper, error) {
			return quietScraper{podsOf(lister, of)}, nil
		}, logger)
	scaler := scaling.NewMultiScaler(ctx.Done(),
		func(of *scaling.Decider) (scaling.UniScaler, error) {
			return scaling.New(attribute.NewSet(), noop.NewMeterProvider(), of.Namespace, of.Name,
				collector, podsOf(lister, of), &of.Spec), nil
		}, logger)
	return []*controller.Impl{
		kpa.NewController(ctx, settings, scaler),
		servingmetric.NewController(ctx, settings, collector),
	}
}

// podsOf returns the pods of the revision that an object of the autoscaler is labelled with.
func podsOf(lister corev1listers.PodLister, of metav1.Object) resources.PodAccessor {
	return resources.NewPodAccessor(lister, of.GetNamespace(), of.GetLabels()[serving.RevisionLabelKey])
}

// quietScraper stands for the queue-proxies of a revision: each ready pod has had no request.
type quietScraper struct {
	pods resources.PodAccessor
}

// Scrape returns nothing for a revision without a ready pod, as Knative's own scraper does.
func (q quietScraper) Scrape(time.Duration) (asmetrics.Stat, error) {
	ready, err := q.pods.ReadyCount()
	if err != nil || ready == 0 {
		return asmetrics.Stat{}, err
	}
	return asmetrics.Stat{PodName: "quiet"}, nil
}
