{{- define "acclimate.name" -}}
{{- printf "%s-acclimate" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "acclimate.selector" -}}
app.kubernetes.io/name: acclimate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "acclimate.labels" -}}
{{ include "acclimate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "acclimate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "acclimate.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "acclimate.checked" -}}
{{- if not .Values.bundles.volume -}}
{{- fail "bundles.volume is empty; name the volume that holds the bundles, {persistentVolumeClaim: {claimName: models}} for instance" -}}
{{- end -}}
{{- if not (or .Values.insecure .Values.tls.secretName) -}}
{{- fail "tls.secretName is empty; name a secret with tls.crt, tls.key and ca.crt, or say insecure: true where the network protects by itself" -}}
{{- end -}}
{{- end -}}

{{- /* Kubernetes' own gRPC probe speaks no TLS; the image's command does. */ -}}
{{- define "acclimate.ready" -}}
{{- if .Values.tls.secretName -}}
exec:
  command: [acclimate, health, --ca, /etc/acclimate/tls/ca.crt, --name, {{ required "tls.serverName is empty; give a name that is in the certificate" .Values.tls.serverName | quote }}]
{{- else -}}
grpc:
  port: 8001
{{- end -}}
{{- end -}}
