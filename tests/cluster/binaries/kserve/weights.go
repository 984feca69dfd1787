package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
//     for the stable, nothing for canaries that are not; without a canary there is no weight. A
//     live route is not written for a weight that is not wanted: a single backend keeps its 100 if
//     the canary goes before it was ever ready;
//   - the predictor's route has a name and a host of its own, whatever the predictor is called, so
//     that both outlive a promotion;
//   - the service's own route is written after the predictor's, and a while later: a busy 0.21
//     took 0.05 to 6 s, and until then the two have different weights;
//   - the Deployment of the stable is written after those of the canaries, and after what is no
//     longer named was deleted.
type weighted struct {
	client.Client
	held *gate
	// gap is the time between the writes of the two routes.
	gap time.Duration
	// read holds each InferenceService as the controller read it last: what it wants of a route
	// is about that one, and not about one that was changed since.
	read sync.Map
	// later holds, by InferenceService, the write of the stable's Deployment that waits for the
	// canaries of the same pass.
	later sync.Map
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
		w.later.Delete(key)
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
	switch object := object.(type) {
	case *gatewayv1.HTTPRoute:
		if err := w.split(ctx, object); err != nil {
			return err
		}
		if err := w.wait(ctx, object); err != nil {
			return err
		}
	case *appsv1.Deployment:
		made := object.DeepCopy()
		if w.postpone(object, func() error { return w.Client.Create(ctx, made, options...) }) {
			return nil
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
		if err := w.wait(ctx, route); err != nil {
			return err
		}
	}
	return w.Client.Update(ctx, object, options...)
}

func (w *weighted) Patch(
	ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption,
) error {
	if live, ok := object.(*appsv1.Deployment); ok {
		live = live.DeepCopy()
		if w.postpone(object, func() error { return w.Client.Patch(ctx, live, patch, options...) }) {
			return nil
		}
	}
	return w.Client.Patch(ctx, object, patch, options...)
}

// List makes the writes that waited for the canaries: the controller lists the stable's pods right
// after it has reconciled them.
func (w *weighted) List(
	ctx context.Context, list client.ObjectList, options ...client.ListOption,
) error {
	if _, ok := list.(*corev1.PodList); ok {
		asked := client.ListOptions{}
		asked.ApplyOptions(options)
		var err error
		w.later.Range(func(of, write any) bool {
			if of.(client.ObjectKey).Namespace == asked.Namespace {
				w.later.Delete(of)
				err = write.(func() error)()
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return w.Client.List(ctx, list, options...)
}

// postpone keeps a write for later, and returns true, if it is of the Deployment of a stable.
func (w *weighted) postpone(object client.Object, write func() error) bool {
	owner := metav1.GetControllerOf(object)
	if owner == nil || owner.Kind != "InferenceService" {
		return false
	}
	key := client.ObjectKey{Namespace: object.GetNamespace(), Name: owner.Name}
	found, ok := w.read.Load(key)
	if !ok || object.GetName() != stableName(found.(*v1beta1.InferenceService)) {
		return false
	}
	w.later.Store(key, write)
	return true
}

// wait returns when a route may be written: the service's own after the gap.
func (w *weighted) wait(ctx context.Context, route *gatewayv1.HTTPRoute) error {
	owner := metav1.GetControllerOf(route)
	if owner == nil || owner.Name != route.Name {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(w.gap):
		return nil
	}
}

// stableName returns the name of the Deployment and the Service of the stable.
func stableName(service *v1beta1.InferenceService) string {
	return constants.PredictorServiceName(service.Name, service.Spec.Predictor.Name)
}

// routeName returns the name that a route of the given name has in KServe 0.21.
func (w *weighted) routeName(key client.ObjectKey) string {
	name := key.Name
	w.read.Range(func(of, found any) bool {
		service := found.(*v1beta1.InferenceService)
		stable := stableName(service)
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
	stable := stableName(service)
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
	stable := stableName(service)
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
// weights do, but for those that are not wanted.
func isUpToDate(wanted, live *gatewayv1.HTTPRoute) bool {
	return equality.Semantic.DeepDerivative(wanted.Spec, live.Spec) &&
		equality.Semantic.DeepDerivative(wanted.Labels, live.Labels) &&
		equality.Semantic.DeepDerivative(wanted.Annotations, live.Annotations) &&
		slices.EqualFunc(wanted.Spec.Rules, live.Spec.Rules, hasBackends)
}

// hasBackends reports whether a live rule has the wanted backends and no others, at the weights
// that are wanted.
func hasBackends(wanted, live gatewayv1.HTTPRouteRule) bool {
	return slices.EqualFunc(wanted.BackendRefs, live.BackendRefs,
		func(wanted, live gatewayv1.HTTPBackendRef) bool {
			return wanted.Name == live.Name &&
				(wanted.Weight == nil || *wanted.Weight == ptr.Deref(live.Weight, 1))
		})
}
