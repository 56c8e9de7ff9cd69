{{- define "tollgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 48 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 48 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end }}

{{- define "tollgate.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "tollgate.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What must not be installed, with what to do. */}}
{{- define "tollgate.check" -}}
{{- if gt (int .Values.replicas) 1 }}
{{- if not .Values.redis.addresses }}{{ fail "replicas above 1 need redis.addresses: without Redis each pod would grant all limits by itself" }}{{ end }}
{{- if not (or .Values.keys.existingSecret .Values.postgres.keys) }}{{ fail "replicas above 1 need one set of keys: set keys.existingSecret, or postgres.keys" }}{{ end }}
{{- end }}
{{- if and .Values.postgres.keys (not .Values.postgres.existingSecret) }}{{ fail "postgres.keys needs postgres.existingSecret" }}{{ end }}
{{- if and .Values.postgres.keys .Values.keys.existingSecret }}{{ fail "keys are either in PostgreSQL (postgres.keys) or in keys.existingSecret; import a file with `tollgate keys`" }}{{ end }}
{{- if and (eq .Values.mode "service") (not .Values.listen.tlsSecret) }}{{ fail "mode service needs listen.tlsSecret: a Secret with tls.crt, tls.key and ca.crt" }}{{ end }}
{{- if and (eq .Values.mode "service") .Values.edge.tlsSecret }}{{ fail "edge.tlsSecret is for mode gateway; mode service has listen.tlsSecret" }}{{ end }}
{{- if and (eq .Values.mode "service") .Values.simulatedEngine.enabled }}{{ fail "simulatedEngine is for mode gateway: the Envoys of mode service could not reach it" }}{{ end }}
{{- if and .Values.simulatedEngine.enabled .Values.engines }}{{ fail "simulatedEngine is the engine: remove engines" }}{{ end }}
{{- if and (not .Values.simulatedEngine.enabled) (not .Values.engines) (not .Values.config.engines) }}{{ fail "name the engines: engines: [{address: \"vllm:8000\"}], or simulatedEngine.enabled for a try" }}{{ end }}
{{- end }}

{{/* The configuration, as docs/configuration.md has it. */}}
{{- define "tollgate.config" -}}
{{- $c := dict "metrics_listen" "0.0.0.0:9464" "state_dir" "/srv/tollgate/state" "drain_timeout" (printf "%ds" (int .Values.drain.seconds)) }}
{{- $_ := set $c "auth" (dict "api_keys_file" (ternary (printf "/etc/tollgate/keys/%s" .Values.keys.key) "/srv/tollgate/state/keys/api_keys.json" (ne .Values.keys.existingSecret ""))) }}
{{- $vllm := dict "auto_start" false }}
{{- if .Values.engineKey.existingSecret }}{{ $_ := set $vllm "api_key_file" (printf "/etc/tollgate/engine/%s" .Values.engineKey.key) }}{{ end }}
{{- $_ := set $c "vllm" $vllm }}
{{- if .Values.simulatedEngine.enabled }}{{ $_ := set $c "engines" (list (dict "address" "127.0.0.1:8000")) }}{{ else if .Values.engines }}{{ $_ := set $c "engines" .Values.engines }}{{ end }}
{{- if .Values.redis.addresses }}
{{- $redis := dict "addresses" .Values.redis.addresses "db" (int .Values.redis.db) "tls" .Values.redis.tls }}
{{- if .Values.redis.username }}{{ $_ := set $redis "username" .Values.redis.username }}{{ end }}
{{- if .Values.redis.existingSecret }}{{ $_ := set $redis "password_file" (printf "/etc/tollgate/redis/%s" .Values.redis.key) }}{{ end }}
{{- $_ := set $c "store" (dict "kind" "redis" "redis" $redis) }}
{{- end }}
{{- if .Values.postgres.existingSecret }}{{ $_ := set $c "central" (dict "postgres_file" (printf "/etc/tollgate/postgres/%s" .Values.postgres.key) "keys" .Values.postgres.keys) }}{{ end }}
{{- if eq .Values.mode "gateway" }}
{{- $_ := set $c "listen" "0.0.0.0:8080" }}
{{- $_ := set $c "envoy" (dict "concurrency" (int .Values.envoy.concurrency) "meter" .Values.envoy.meter) }}
{{- if .Values.edge.tlsSecret }}{{ $_ := set $c "tls" (dict "cert_file" "/etc/tollgate/tls/tls.crt" "key_file" "/etc/tollgate/tls/tls.key") }}{{ end }}
{{- else }}
{{- $_ := set $c "service" (dict "listen" (printf "0.0.0.0:%d" (int .Values.listen.port)) "tls" (dict "cert_file" "/etc/tollgate/service/tls.crt" "key_file" "/etc/tollgate/service/tls.key" "client_ca_file" "/etc/tollgate/service/ca.crt" "client_ids" .Values.listen.clientIDs)) }}
{{- end }}
{{- toYaml (mergeOverwrite $c (deepCopy .Values.config)) }}
{{- end }}

{{/* Where the configuration and what it names are, for every container that reads it. */}}
{{- define "tollgate.mounts" -}}
- {name: config, mountPath: /etc/tollgate/config, readOnly: true}
- {name: state, mountPath: /srv/tollgate/state}
{{- range $name, $secret := include "tollgate.secrets" . | fromYaml }}
- {name: {{ $name }}, mountPath: /etc/tollgate/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Secrets, by the name of their volume. */}}
{{- define "tollgate.secrets" -}}
{{- with .Values.keys.existingSecret }}
keys: {{ . }}
{{- end }}
{{- with .Values.engineKey.existingSecret }}
engine: {{ . }}
{{- end }}
{{- with .Values.redis.existingSecret }}
redis: {{ . }}
{{- end }}
{{- with .Values.postgres.existingSecret }}
postgres: {{ . }}
{{- end }}
{{- if eq .Values.mode "gateway" }}
{{- with .Values.edge.tlsSecret }}
tls: {{ . }}
{{- end }}
{{- else }}
service: {{ .Values.listen.tlsSecret }}
{{- end }}
{{- end }}

{{/* The service, the same container in both modes. */}}
{{- define "tollgate.serve" -}}
- name: tollgate
  image: {{ include "tollgate.image" (dict "image" .Values.image "root" .) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [serve, --log, stderr]
  env: [{name: CONFIG_FILE, value: /etc/tollgate/config/config.yaml}]
  ports:
  - {name: metrics, containerPort: 9464}
  {{- if eq .Values.mode "service" }}
  - {name: service, containerPort: {{ .Values.listen.port }}}
  {{- end }}
  # At its start it waits for Redis, and says so.
  startupProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 1, failureThreshold: 600}
  readinessProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 2, timeoutSeconds: 2}
  livenessProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 6}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext: {{- include "tollgate.container" . | nindent 4 }}
  volumeMounts: {{- include "tollgate.mounts" . | nindent 2 }}
{{- end }}
