package main

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/configmap"
	"knative.dev/pkg/controller"
	"knative.dev/pkg/logging"
	"knative.dev/pkg/webhook"
	"knative.dev/pkg/webhook/resourcesemantics"
	"knative.dev/pkg/webhook/resourcesemantics/defaulting"
	"knative.dev/pkg/webhook/resourcesemantics/validation"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	apisconfig "knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	servingwebhook "knative.dev/serving/pkg/webhook"
)

// What Knative's own webhook program (knative.dev/serving/cmd/webhook) is asked about.
var kinds = map[schema.GroupVersionKind]resourcesemantics.GenericCRD{
	servingv1.SchemeGroupVersion.WithKind("Revision"):                &servingv1.Revision{},
	servingv1.SchemeGroupVersion.WithKind("Configuration"):           &servingv1.Configuration{},
	servingv1.SchemeGroupVersion.WithKind("Route"):                   &servingv1.Route{},
	servingv1.SchemeGroupVersion.WithKind("Service"):                 &servingv1.Service{},
	servingv1beta1.SchemeGroupVersion.WithKind("DomainMapping"):      &servingv1beta1.DomainMapping{},
	autoscalingv1alpha1.SchemeGroupVersion.WithKind("PodAutoscaler"): &autoscalingv1alpha1.PodAutoscaler{},
	autoscalingv1alpha1.SchemeGroupVersion.WithKind("Metric"):        &autoscalingv1alpha1.Metric{},
	netv1alpha1.SchemeGroupVersion.WithKind("Certificate"):           &netv1alpha1.Certificate{},
	netv1alpha1.SchemeGroupVersion.WithKind("Ingress"):               &netv1alpha1.Ingress{},
	netv1alpha1.SchemeGroupVersion.WithKind("ServerlessService"):     &netv1alpha1.ServerlessService{},
}

var callbacks = map[schema.GroupVersionKind]validation.Callback{
	servingv1.SchemeGroupVersion.WithKind("Service"): validation.NewCallback(
		servingwebhook.ValidateService, webhook.Create, webhook.Update),
	servingv1.SchemeGroupVersion.WithKind("Configuration"): validation.NewCallback(
		servingwebhook.ValidateConfiguration, webhook.Create, webhook.Update),
}

func defaulter(ctx context.Context, settings configmap.Watcher) *controller.Impl {
	return defaulting.NewAdmissionController(ctx, "webhook.serving.knative.dev", "/defaulting",
		kinds, configured(ctx, settings), false)
}

func validator(ctx context.Context, settings configmap.Watcher) *controller.Impl {
	return validation.NewAdmissionController(ctx, "validation.webhook.serving.knative.dev",
		"/resource-validation", kinds, configured(ctx, settings), false, callbacks)
}

// configured returns what gives a request's context the settings that are in force.
func configured(ctx context.Context, settings configmap.Watcher) func(context.Context) context.Context {
	store := apisconfig.NewStore(logging.FromContext(ctx).Named("config-store"))
	store.WatchConfigs(settings)
	return store.ToContext
}
