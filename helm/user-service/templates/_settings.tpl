{{/* The settings, as the TOML file that the service reads. A scalar of JSON is one of TOML too. */}}
{{- define "user-service.settings" -}}
grpc_addr = "[::]:50051"
admin_addr = "[::]:9464"
{{- with get (dict "sqlite" "sqlite:/data/user-service.db" "memory" "memory:") .Values.store.type }}
store_url = {{ . | quote }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- end }}
