{{/* Values that contradict each other in a way that the schema cannot say. */}}

{{- define "hiar.refusals" -}}
{{- $gpu := .Values.devices.gpuResource -}}
{{- range $key, $amounts := .Values.resources -}}
{{- if hasKey $amounts $gpu -}}
{{- fail (printf "/resources/%s names %s: /devices/count is the number of GPUs" $key $gpu) -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.metrics.port) (int .Values.server.port) -}}
{{- fail "/metrics/port is /server/port: metrics have a port of their own" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "/autoscaling/minReplicas is above /autoscaling/maxReplicas" -}}
{{- end -}}
{{- $several := or (gt (int .Values.topology.replicas) 1) (ne .Values.autoscaling.kind "none") -}}
{{- with .Values.durability -}}
{{- if and .existingClaim $several (not .databaseSecret.name) -}}
{{- fail "/durability/databaseSecret/name is empty: several servers on one claim need a database" -}}
{{- end -}}
{{- if and .store (not .databaseSecret.name) -}}
{{- fail "/durability/databaseSecret/name is empty: /durability/store needs a database" -}}
{{- end -}}
{{- if and .databaseSecret.name (not .store) (not .existingClaim) -}}
{{- fail "/durability/store and /durability/existingClaim are empty: a database holds no files of videos" -}}
{{- end -}}
{{- end -}}
{{- end -}}
