{{/* What no install may go against. The schema says it too; this holds where schemas are skipped, and knows sums. */}}
{{- define "user-service.checks" -}}
{{- $type := .Values.store.type }}
{{- $many := eq (include "user-service.many" .) "true" }}
{{- if not (has $type (list "sqlite" "memory")) }}
{{- fail (printf "store.type is %q: it must be sqlite or memory" $type) }}
{{- end }}
{{- if and $many (eq $type "sqlite") }}
{{- fail "store.type sqlite has one writer: set replicaCount to 1 or 0 and autoscaling.enabled to false" }}
{{- end }}
{{- if and $many (eq $type "memory") (not .Values.store.memory.independentReplicas) }}
{{- fail "store.type memory keeps users apart in each replica: set replicaCount to 1 and autoscaling.enabled to false, or accept that with store.memory.independentReplicas" }}
{{- end }}
{{- range list "grpc_addr" "admin_addr" "store_url" }}
{{- if hasKey $.Values.config . }}
{{- fail (printf "config.%s belongs to the chart: probes, Services and volumes follow from it" .) }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "USERSVC_" .name }}
{{- fail (printf "extraEnv sets %s: settings go into config, from which the chart computes" .name) }}
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
