package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kserve/kserve/pkg/apis/serving/v1beta1"
	"github.com/kserve/kserve/pkg/constants"
)

// weighted is the client through which KServe's controller reads and writes. KServe 0.20 makes the
// Deployments of canaries and gives them no traffic; 0.21 and newer do. The difference is simulated
// here, between the controller and the API server, so that everything else, and the order of all
// writes, stays KServe's:
//
//   - backends of the predictor get weights: 100 less the shares of the canaries that are ready
//     for the stable, nothing for canaries that are not; without a canary there is no weight;
//   - the predictor's route has a name and a host of its own, whatever the predictor is called, so
//     that both outlive a promotion.
type weighted struct {
	client.Client
	held *gate
	// read holds each InferenceService as the controller read it last: what it wants of a route
	// is about that one, and not about one that was changed since.
	read sync.Map
}

func (w *weighted) Get(
	ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption,
) error {
	switch into := into.(type) {
	case *v1beta1.InferenceService:
		if err := w.held.pass(ctx); err != nil {
			return err
		}
		if err := w.Client.Get(ctx, key, into, options...); err != nil {
			w.read.Delete(key)
			return err
		}
		w.read.Store(key, into.DeepCopy())
		return nil
	case *gatewayv1.HTTPRoute:
		key.Name = w.routeName(key)
		if err := w.Client.Get(ctx, key, into, options...); err != nil {
			return err
		}
		// Without rules it looks outdated, so that the controller always comes to Update, where
		// weights are compared too; its own comparison knows none.
		into.Spec.Rules = nil
		return nil
	}
	return w.Client.Get(ctx, key, into, options...)
}

func (w *weighted) Create(
	ctx context.Context, object client.Object, options ...client.CreateOption,
) error {
	if route, ok := object.(*gatewayv1.HTTPRoute); ok {
		if err := w.split(ctx, route); err != nil {
			return err
		}
	}
	return w.Client.Create(ctx, object, options...)
}

func (w *weighted) Update(
	ctx context.Context, object client.Object, options ...client.UpdateOption,
) error {
	if route, ok := object.(*gatewayv1.HTTPRoute); ok {
		if err := w.split(ctx, route); err != nil {
			return err
		}
		live := &gatewayv1.HTTPRoute{}
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(route), live); err != nil {
			return err
		}
		if isUpToDate(route, live) {
			return nil
		}
	}
	return w.Client.Update(ctx, object, options...)
}

// routeName returns the name that a route of the given name has in KServe 0.21.
func (w *weighted) routeName(key client.ObjectKey) string {
	name := key.Name
	w.read.Range(func(of, found any) bool {
		service := found.(*v1beta1.InferenceService)
		stable := constants.PredictorServiceName(service.Name, service.Spec.Predictor.Name)
		if of.(client.ObjectKey).Namespace == key.Namespace && key.Name == stable {
			name = constants.PredictorServiceName(service.Name)
			return false
		}
		return true
	})
	return name
}

// split gives a route that the controller wants the name, the hosts and the weights of 0.21.
func (w *weighted) split(ctx context.Context, route *gatewayv1.HTTPRoute) error {
	owner := metav1.GetControllerOf(route)
	if owner == nil || owner.Kind != "InferenceService" {
		return nil
	}
	found, ok := w.read.Load(client.ObjectKey{Namespace: route.Namespace, Name: owner.Name})
	if !ok {
		return fmt.Errorf("route %s is of an InferenceService that was not read", route.Name)
	}
	service := found.(*v1beta1.InferenceService)
	stable := constants.PredictorServiceName(service.Name, service.Spec.Predictor.Name)
	if route.Name == stable {
		route.Name = constants.PredictorServiceName(service.Name)
		for i, host := range route.Spec.Hostnames {
			route.Spec.Hostnames[i] = gatewayv1.Hostname(
				strings.Replace(string(host), stable, route.Name, 1))
		}
	}
	shares, err := w.shares(ctx, service)
	if err != nil || len(shares) == 0 {
		return err
	}
	for i := range route.Spec.Rules {
		rule := &route.Spec.Rules[i]
		if len(rule.BackendRefs) == 1 && string(rule.BackendRefs[0].Name) == stable {
			rule.BackendRefs = backends(rule.BackendRefs[0], shares)
		}
	}
	return nil
}

// share is what a backend gets of a hundred requests.
type share struct {
	name    string
	percent int32
}

// shares returns those of the stable and of the canaries that are ready; none without canaries.
func (w *weighted) shares(
	ctx context.Context, service *v1beta1.InferenceService,
) ([]share, error) {
	if len(service.Spec.Canary) == 0 {
		return nil, nil
	}
	stable := constants.PredictorServiceName(service.Name, service.Spec.Predictor.Name)
	all := []share{{stable, 100}}
	for i := range service.Spec.Canary {
		canary := &service.Spec.Canary[i]
		name := constants.PredictorServiceName(service.Name, canary.Predictor.Name)
		live := &appsv1.Deployment{}
		key := client.ObjectKey{Namespace: service.Namespace, Name: name}
		if err := w.Client.Get(ctx, key, live); client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if live.Status.AvailableReplicas > 0 {
			all[0].percent -= canary.TrafficPercent
			all = append(all, share{name, canary.TrafficPercent})
		}
	}
	return all, nil
}

func backends(like gatewayv1.HTTPBackendRef, shares []share) []gatewayv1.HTTPBackendRef {
	all := make([]gatewayv1.HTTPBackendRef, len(shares))
	for i, one := range shares {
		like.DeepCopyInto(&all[i])
		all[i].Name = gatewayv1.ObjectName(one.name)
		all[i].Weight = ptr.To(one.percent)
	}
	return all
}

// isUpToDate reports whether a live route is as wanted; what the API server added does not count,
// weights do.
func isUpToDate(wanted, live *gatewayv1.HTTPRoute) bool {
	return equality.Semantic.DeepDerivative(wanted.Spec, live.Spec) &&
		equality.Semantic.DeepDerivative(wanted.Labels, live.Labels) &&
		equality.Semantic.DeepDerivative(wanted.Annotations, live.Annotations) &&
		equality.Semantic.DeepEqual(weights(wanted), weights(live))
}

// weights returns the weight of each backend by the number of its rule and its name.
func weights(route *gatewayv1.HTTPRoute) []map[string]int32 {
	all := make([]map[string]int32, len(route.Spec.Rules))
	for i, rule := range route.Spec.Rules {
		all[i] = map[string]int32{}
		for _, one := range rule.BackendRefs {
			all[i][string(one.Name)] = ptr.Deref(one.Weight, 1)
		}
	}
	return all
}
