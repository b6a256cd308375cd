{{/* The settings, as the TOML file that the service reads. A scalar of JSON is one of TOML too. */}}
{{- define "user-service.settings" -}}
grpc_addr = "[::]:50051"
admin_addr = "[::]:9464"
store_url = {{ eq .Values.store.type "sqlite" | ternary "sqlite:/data/user-service.db" "memory:" | quote }}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- end }}
