{{/* What the two autoscalers share. */}}

{{- define "hiar.scaleTarget" -}}
{{- if eq .Values.topology.mode "lws" -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
{{- else -}}
apiVersion: apps/v1
kind: StatefulSet
{{- end }}
name: {{ include "hiar.workload" . | quote }}
{{- end -}}

{{/* Quick up; slowly down, one server at a time: whoever is removed ends its videos. */}}
{{- define "hiar.scaleBehavior" -}}
{{- with .Values.autoscaling -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUpWindowSeconds }}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownWindowSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ .scaleDownPeriodSeconds }}}
{{- end -}}
{{- end -}}

{{/* Load of all servers together, in servers: the autoscaler divides it by their number. One whose videos stand still
because it makes them slower than they play is full, whatever places it has. */}}
{{- define "hiar.loadQuery" -}}
{{- if .Values.autoscaling.keda.query -}}
{{- .Values.autoscaling.keda.query -}}
{{- else -}}
{{- $of := printf "{namespace=%q,service=%q}" .Release.Namespace (include "hiar.headless" .) -}}
{{- $load := printf "max_over_time(((hiar_videos_running%s + hiar_videos_waiting%s) / (hiar_video_slots%s > 0))[1m:15s])" $of $of $of -}}
{{- $made := printf "sum by (pod) (rate(hiar_video_generated_seconds_total%s[1m]))" $of -}}
{{- $running := printf "sum by (pod) (avg_over_time(hiar_videos_running%s[1m]))" $of -}}
{{- $still := printf "sum by (pod) (rate(hiar_stream_stalled_seconds_total%s[1m])) > 0" $of -}}
{{- $slow := printf "(%s / (%s > 0) < 0.95 and %s)" $made $running $still -}}
{{- printf "sum(clamp_min(%s, 1) and on (pod) %s or %s)" $load $slow $load -}}
{{- end -}}
{{- end -}}
