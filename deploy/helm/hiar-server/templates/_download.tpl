{{/* Filling the model's volume, and waiting for it. hiar-download has a lock, goes on where it was cut off, and does
nothing when all is there. */}}

{{- define "hiar.downloadContainer" -}}
{{- $download := .Values.model.download -}}
{{- $command := list "hiar-download" $download.source "--to" (include "hiar.modelFolder" .) -}}
{{- with $download.revision }}{{ $command = concat $command (list "--revision" .) }}{{ end -}}
{{- range $download.only }}{{ $command = concat $command (list "--only" .) }}{{ end -}}
{{- if $download.tinyDecoder }}{{ $command = append $command "--tiny-decoder" }}{{ end -}}
- name: download
  image: {{ include "hiar.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: {{ toJson $command }}
  securityContext:
    {{- .Values.securityContext | default dict | toYaml | nindent 4 }}
  {{- if or $download.tokenSecret.name $download.extraEnv }}
  env:
    {{- if $download.tokenSecret.name }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef: {{- toYaml $download.tokenSecret | nindent 10 }}
    {{- end }}
    {{- with $download.extraEnv }}
    {{- include "hiar.extraEnv" . | nindent 4 }}
    {{- end }}
  {{- end }}
  resources:
    {{- $download.resources | default dict | toYaml | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: models, mountPath: /models}
{{- end -}}

{{/* Until a job has filled the volume: .complete is there, and what is under way is not. */}}
{{- define "hiar.waitContainer" -}}
{{- $folder := include "hiar.modelFolder" . -}}
- name: wait-for-model
  image: {{ include "hiar.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sh, -c, "until [ -f {{ $folder }}/.complete ] && [ ! -e {{ $folder }}/.hiar-download ]; do sleep 2; done"]
  securityContext:
    {{- .Values.securityContext | default dict | toYaml | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: models, mountPath: /models, readOnly: true}
{{- end -}}

{{- define "hiar.initContainers" -}}
{{- if .Values.model.download.source -}}
{{- include (eq .Values.model.volume.kind "perPod" | ternary "hiar.downloadContainer" "hiar.waitContainer") . -}}
{{- end -}}
{{- end -}}
