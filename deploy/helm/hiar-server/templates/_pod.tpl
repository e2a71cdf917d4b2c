{{/* The pod of a server, and of a node that lends it devices. Both take a dict of root and role (server or node). */}}

{{/* cuda:0,cuda:1,... or cpu,cpu,... */}}
{{- define "hiar.devices" -}}
{{- $kind := .Values.devices.kind -}}
{{- $devices := list -}}
{{- range $number := until (int .Values.devices.count) -}}
{{- $devices = append $devices (eq $kind "cuda" | ternary (printf "cuda:%d" $number) $kind) -}}
{{- end -}}
{{- join "," $devices -}}
{{- end -}}

{{- define "hiar.modelFolder" -}}
/models/{{ .Values.model.name }}
{{- end -}}

{{/* The claim that all pods share. */}}
{{- define "hiar.modelClaim" -}}
{{- if eq .Values.model.volume.kind "existing" -}}
{{- .Values.model.volume.existingClaim -}}
{{- else -}}
{{- include "hiar.fullname" . }}-models
{{- end -}}
{{- end -}}

{{- define "hiar.graceSeconds" -}}
{{- with .Values.shutdown -}}
{{- add .preStopSleepSeconds .drainSeconds .stopSeconds -}}
{{- end -}}
{{- end -}}

{{- define "hiar.podLabels" -}}
{{ include "hiar.instance" .root }}
app.kubernetes.io/component: {{ .role }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hiar.podTemplate" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "hiar.podLabels" . | nindent 4 }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "hiar.serviceAccount" .root | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false # a service named hiar would set HIAR_PORT
  terminationGracePeriodSeconds: {{ include "hiar.graceSeconds" .root }}
  securityContext:
    {{- $values.podSecurityContext | default dict | toYaml | nindent 4 }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "hiar.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "hiar.initContainers" .root }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "hiar.container" . | nindent 4 }}
  volumes:
    {{- include "hiar.volumes" .root | nindent 4 }}
    {{- if eq .role "server" }}
    {{- include "hiar.dataVolume" $values.durability.volume | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "hiar.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "resourceClaims" }}
{{- with index $.root.Values $key }}
{{ toYaml (dict $key .) }}
{{- end }}
{{- end }}
{{- $own := include "hiar.instance" .root | fromYaml | merge (dict "app.kubernetes.io/component" .role) -}}
{{- with .root.Values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{ hasKey . "labelSelector" | ternary . (merge (dict "labelSelector" (dict "matchLabels" $own)) .) | toJson }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "hiar.container" -}}
{{- $values := .root.Values -}}
- name: server
  image: {{ include "hiar.image" .root | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command: [hiar-server]
  securityContext:
    {{- $values.securityContext | default dict | toYaml | nindent 4 }}
  env:
    {{- include "hiar.env" . | nindent 4 }}
    {{- with $values.extraEnv }}
    {{- include "hiar.extraEnv" . | nindent 4 }}
    {{- end }}
  {{- with include "hiar.envFrom" . }}
  envFrom:
    {{- . | nindent 4 }}
  {{- end }}
  {{- if eq .role "server" }}
  ports:
    - {name: http, containerPort: {{ $values.server.port }}}
    - {name: metrics, containerPort: {{ $values.metrics.port }}}
  {{- include "hiar.probes" $values.probes | nindent 2 }}
  {{- end }}
  lifecycle:
    preStop:
      sleep: {seconds: {{ $values.shutdown.preStopSleepSeconds }}}
  resources:
    {{- include "hiar.resources" .root | nindent 4 }}
  volumeMounts:
    {{- include "hiar.mounts" .root | nindent 4 }}
    {{- if and (eq .role "server") (ne $values.durability.volume.kind "none") }}
    - {name: data, mountPath: /data}
    {{- end }}
{{- end -}}

{{- define "hiar.envFrom" -}}
{{- $store := .root.Values.durability.storeSecret.name -}}
{{- if and $store (eq .role "server") -}}
- secretRef: {name: {{ $store | quote }}}
{{ end -}}
{{- with .root.Values.extraEnvFrom }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* More environment; Kubernetes wants numbers and booleans as text. */}}
{{- define "hiar.extraEnv" -}}
{{- range . -}}
{{- $value := get . "value" -}}
{{- $text := or (kindIs "string" $value) (kindIs "invalid" $value) | ternary $value (toJson $value) -}}
- {{ hasKey . "value" | ternary (merge (dict "value" $text) .) . | toJson }}
{{ end -}}
{{- end -}}

{{/* The server answers /livez while it loads and while it recovers; /readyz when it takes requests. */}}
{{- define "hiar.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  {{- toYaml .startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: http}
  {{- toYaml .liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  {{- toYaml .readiness | nindent 2 }}
{{- end -}}

{{- define "hiar.resources" -}}
{{- $resources := .Values.resources | default dict | deepCopy -}}
{{- if and (eq .Values.devices.kind "cuda") .Values.devices.gpuResource -}}
{{- $gpus := dict .Values.devices.gpuResource (int .Values.devices.count) -}}
{{- $limits := merge $gpus ($resources.limits | default dict) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "hiar.env" -}}
{{- $values := .root.Values -}}
- {name: HIAR_DEVICES, value: {{ include "hiar.devices" .root | quote }}}
{{- if $values.model.name }}
- {name: HIAR_MODEL, value: {{ include "hiar.modelFolder" .root | quote }}}
{{- end }}
{{- with $values.model.preset }}
- {name: HIAR_PRESET, value: {{ . | quote }}}
{{- end }}
{{- with $values.model.decoder }}
- {name: HIAR_DECODER, value: {{ . | quote }}}
{{- end }}
{{- with $values.model.sizes }}
- {name: HIAR_SIZES, value: {{ join "," . | quote }}}
{{- end }}
- {name: HIAR_TEXT_DEVICE, value: {{ $values.model.textDevice | quote }}}
- {name: HIAR_DTYPE, value: {{ $values.model.dtype | quote }}}
- {name: HIAR_KV_DTYPE, value: {{ $values.model.kvDtype | quote }}}
- {name: HIAR_LINEAR_DTYPE, value: {{ $values.model.linearDtype | quote }}}
- {name: HIAR_ATTENTION_DTYPE, value: {{ $values.model.attentionDtype | quote }}}
- {name: HIAR_HOST, value: {{ $values.server.host | quote }}}
- {name: HIAR_PORT, value: {{ $values.server.port | quote }}}
- {name: HIAR_METRICS_PORT, value: {{ $values.metrics.port | quote }}}
- {name: HIAR_MAX_VIDEOS, value: {{ $values.server.maxVideos | quote }}}
- {name: HIAR_MAX_QUEUE, value: {{ $values.server.maxQueue | quote }}}
{{- with $values.server.maxVideoSeconds }}
- {name: HIAR_MAX_SECONDS, value: {{ . | quote }}}
{{- end }}
- {name: HIAR_LEAD_TARGET, value: {{ $values.server.leadTargetSeconds | quote }}}
- {name: HIAR_START_TIMEOUT, value: {{ $values.server.startTimeoutSeconds | quote }}}
- {name: HIAR_STAGE_TIMEOUT, value: {{ $values.server.stageTimeoutSeconds | quote }}}
- {name: HIAR_RECOVERY_GRACE, value: {{ $values.server.recoveryGraceSeconds | quote }}}
- {name: HIAR_DRAIN_TIMEOUT, value: {{ $values.shutdown.drainSeconds | quote }}}
- {name: HIAR_LOG_LEVEL, value: {{ $values.server.logLevel | quote }}}
- {name: HIAR_LOG_FORMAT, value: {{ $values.server.logFormat | quote }}}
- {name: HIAR_MAX_PER_CLIENT, value: {{ $values.server.maxPerClient | quote }}}
- {name: HIAR_MAX_UPLOAD, value: {{ $values.server.maxUploadBytes | int64 | quote }}}
- {name: HIAR_ALLOWED_HOSTS, value: {{ include "hiar.hosts" .root | quote }}}
{{- with $values.server.corsOrigins }}
- {name: HIAR_CORS_ORIGINS, value: {{ join "," . | quote }}}
{{- end }}
{{- with $values.server.trustedProxies }}
- {name: HIAR_TRUSTED_PROXIES, value: {{ join "," . | quote }}}
{{- end }}
{{- if $values.auth.keysSecret.name }}
- {name: HIAR_KEYS, value: {{ printf "/keys/%s" $values.auth.keysSecret.key | quote }}}
{{- end }}
- {name: HIAR_INSECURE, value: {{ empty $values.auth.keysSecret.name | quote }}}
{{- include "hiar.durability" $values.durability }}
{{- if $values.durability.databaseSecret.name }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: HIAR_ADVERTISE, value: {{ include "hiar.advertised" .root | quote }}}
{{- end }}
- {name: TRITON_CACHE_DIR, value: /cache/triton}
- {name: CUDA_CACHE_PATH, value: /cache/cuda}
- {name: TORCHINDUCTOR_CACHE_DIR, value: /cache/inductor}
{{- if eq $values.topology.mode "lws" }}
- name: HIAR_GROUP_TOKEN
  valueFrom:
    secretKeyRef: {{- toYaml $values.topology.lws.groupTokenSecret | nindent 6 }}
{{- end }}
{{- end -}}

{{/* The address of a single pod, to which others send readers of its running videos. */}}
{{- define "hiar.advertised" -}}
{{- $pods := eq .Values.topology.mode "lws" | ternary (include "hiar.workload" .) (include "hiar.headless" .) -}}
{{- $outside := .Values.durability.advertise -}}
{{- $outside | default (printf "http://$(POD_NAME).%s.%s:%v" $pods .Release.Namespace .Values.server.port) -}}
{{- end -}}

{{/* Where jobs outlive their pod. */}}
{{- define "hiar.durability" }}
- {name: HIAR_DATA, value: {{ eq .volume.kind "none" | ternary "memory" "/data" }}}
{{- with .store }}
- {name: HIAR_STORE, value: {{ . | quote }}}
{{- end }}
{{- if .databaseSecret.name }}
- name: HIAR_DATABASE
  valueFrom:
    secretKeyRef: {{- toYaml .databaseSecret | nindent 6 }}
{{- end }}
- {name: HIAR_KEEP_HOURS, value: {{ .keepHours | quote }}}
{{- if not (kindIs "invalid" .keepBytes) }}
- {name: HIAR_KEEP_BYTES, value: {{ .keepBytes | int64 | quote }}}
{{- end }}
{{- end -}}

{{- define "hiar.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /cache}
- {name: shm, mountPath: /dev/shm}
{{- if .Values.model.name }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if .Values.auth.keysSecret.name }}
- {name: keys, mountPath: /keys, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hiar.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: {{ .Values.storage.tmpSize | quote }}}}
- {name: cache, emptyDir: {sizeLimit: {{ .Values.storage.cacheSize | quote }}}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.storage.shmSize | quote }}}}
{{- if and .Values.model.name (ne .Values.model.volume.kind "perPod") }}
- {name: models, persistentVolumeClaim: {claimName: {{ include "hiar.modelClaim" . | quote }}}}
{{- end }}
{{- with .Values.auth.keysSecret }}
{{- if .name }}
- {name: keys, secret: {secretName: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]}}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where jobs lie. A claim for each pod is no volume of the pod. */}}
{{- define "hiar.dataVolume" -}}
{{- if eq .kind "existing" -}}
- {name: data, persistentVolumeClaim: {claimName: {{ .existingClaim | quote }}}}
{{- else if eq .kind "emptyDir" -}}
- {name: data, emptyDir: {sizeLimit: {{ .size | quote }}}}
{{- end -}}
{{- end -}}

{{/* The spec of a claim that the chart makes, for a volume of the values. */}}
{{- define "hiar.claimSpec" -}}
accessModes: {{ .accessModes | default (list "ReadWriteOnce") | toJson }}
{{- with .storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests: {storage: {{ .size | quote }}}
{{- end -}}
