{{/* What no install may go against. The schema says it too; this holds where schemas are skipped, and knows sums. */}}
{{- define "user-service.checks" -}}
{{- $type := .Values.store.type }}
{{- $many := eq (include "user-service.many" .) "true" }}
{{- if not (has $type (list "sqlite" "memory" "postgres")) }}
{{- fail (printf "store.type is %q: it must be sqlite, memory or postgres" $type) }}
{{- end }}
{{- if and $many (eq $type "sqlite") }}
{{- fail "store.type sqlite has one writer: set replicaCount to 1 or 0 and autoscaling.enabled to false" }}
{{- end }}
{{- if and $many (eq $type "memory") (not .Values.store.memory.independentReplicas) }}
{{- fail "store.type memory keeps users apart in each replica: set replicaCount to 1 and autoscaling.enabled to false, or accept that with store.memory.independentReplicas" }}
{{- end }}
{{- if eq $type "postgres" }}
{{- include "user-service.checks.login" (list . "store.postgres" .Values.store.postgres) }}
{{- if .Values.store.postgres.migration.job }}
{{- include "user-service.checks.login" (list . "store.postgres.migration" (include "user-service.database.migration" . | fromJson)) }}
{{- end }}
{{- end }}
{{- include "user-service.checks.auth" . }}
{{- range list "grpc_addr" "admin_addr" "store_url" "store_password_file" "store_ca_file" "store_cert_file" "store_key_file" "tls_cert_file" "tls_key_file" "tls_client_ca_file" "tls_client_auth" "tls_issuer_ca_file" "auth_policy_file" "auth_jwks_file" "auth_jwks_url" "auth_jwks_ca_file" "auth_issuer" "auth_audience" }}
{{- if hasKey $.Values.config . }}
{{- fail (printf "config.%s belongs to the chart: probes, Services, volumes and secrets follow from it" .) }}
{{- end }}
{{- end }}
{{- with .Values.tls }}
{{- if .enabled }}
{{- if and .certificate.enabled (not .certificate.issuerRef.name) }}
{{- fail "tls.certificate.enabled needs the issuer's name in tls.certificate.issuerRef" }}
{{- end }}
{{- if not (or .certificate.enabled .existingSecret.name) }}
{{- fail "tls.enabled needs a certificate: name its Secret in tls.existingSecret, or enable tls.certificate" }}
{{- end }}
{{- if and (ne .clients.auth "none") (not .clients.caSecret.name) }}
{{- fail "tls.clients.auth needs the authorities of clients: name their Secret in tls.clients.caSecret" }}
{{- end }}
{{- if and (eq .clients.auth "required") (not .certificate.enabled) (not .clients.testSecret) }}
{{- fail "tls.clients.auth required: helm test needs a certificate, too; name its Secret in tls.clients.testSecret" }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if regexMatch "^(USERSVC_.*|OTEL_RESOURCE_ATTRIBUTES|OTEL_EXPORTER_OTLP_ENDPOINT|POD_(NAMESPACE|NAME|UID)|NODE_NAME)$" .name }}
{{- fail (printf "extraEnv sets %s, which the chart sets by itself: use config, store or tracing" .name) }}
{{- end }}
{{- end }}
{{- range concat .Values.extraContainers .Values.extraInitContainers }}
{{- if eq .name "user-service" }}
{{- fail "extraContainers and extraInitContainers may not be called user-service: that is the service's own" }}
{{- end }}
{{- end }}
{{- range .Values.extraVolumes }}
{{- if has .name (list "tmp" "data" "database" "auth" "tls") }}
{{- fail (printf "extraVolumes has %s, which is the chart's own: containers may mount it as it is" .name) }}
{{- end }}
{{- end }}
{{- with .Values.rollout }}
{{- if le (int .progressDeadlineSeconds) (int .minReadySeconds) }}
{{- fail "rollout.progressDeadlineSeconds must be more than rollout.minReadySeconds: Kubernetes refuses it otherwise" }}
{{- end }}
{{- end }}
{{- $least := include "user-service.gracePeriod" . | int }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if lt (int .) $least }}
{{- fail (printf "terminationGracePeriodSeconds is %d: preStopSleepSeconds, config.shutdown_delay_ms, drain_timeout_ms and flush_timeout_ms need %d" (int .) $least) }}
{{- end }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail "autoscaling.minReplicas must be at most autoscaling.maxReplicas" }}
{{- end }}
{{- if not (dig "requests" "cpu" "" $.Values.resources) }}
{{- fail "autoscaling needs resources.requests.cpu: its target is a percentage of that" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) }}
{{- fail "grpcRoute.enabled needs a Gateway in grpcRoute.parentRefs" }}
{{- end }}
{{- end }}

{{/* A login to PostgreSQL: (list $ path login). */}}
{{- define "user-service.checks.login" -}}
{{- $path := index . 1 }}
{{- $ca := (index . 0).Values.store.postgres.caSecret.name }}
{{- with index . 2 }}
{{- $secret := .existingSecret }}
{{- if eq (empty .url) (empty $secret.urlKey) }}
{{- fail (printf "%s needs the database either in url or in the Secret, under existingSecret.urlKey" $path) }}
{{- end }}
{{- if and (or $secret.urlKey $secret.passwordKey) (not $secret.name) }}
{{- fail (printf "%s.existingSecret has keys and no name" $path) }}
{{- end }}
{{- if regexMatch "^[^/]*//[^/?@]*:[^/?@]*@|[?&]password=" .url }}
{{- fail (printf "%s.url holds a password: put it, or the whole URL, into a Secret that existingSecret names" $path) }}
{{- end }}
{{- if and (regexMatch "[?&]sslmode=verify-" .url) (not $ca) }}
{{- fail (printf "%s.url asks for a verified certificate: name the authorities in store.postgres.caSecret" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether there can be more than one replica. */}}
{{- define "user-service.many" -}}
{{- or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- end }}

{{/* The grace period that a whole shutdown fits into: it begins with preStop, and 7 s close the store and the ports. */}}
{{- define "user-service.gracePeriod" -}}
{{- $ms := 0 }}
{{- range list "shutdown_delay_ms" "drain_timeout_ms" "flush_timeout_ms" }}
{{- $ms = add $ms (index $.Values.config . | required (printf "config.%s must be set: the grace period is computed from it" .) | int64) }}
{{- end }}
{{- add .Values.preStopSleepSeconds (div (add $ms 999) 1000) 7 }}
{{- end }}
