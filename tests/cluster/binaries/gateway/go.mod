module ml.dwcp.io/dwcpml/tests/cluster/gateway

go 1.26.0

// Nothing is built of it: the tests use its custom resource definitions.
require sigs.k8s.io/gateway-api v1.5.1
