{{/*
What goes into the pods of your own charts; each takes the context of this chart, which a parent has as
`.Subcharts.samekey`. config/kubernetes/README.md shows a whole Deployment.
*/}}

{{/* Labels of the pod: by them the PodMonitor finds it. */}}
{{- define "samekey.labels" -}}
samekey.internal/sidecar: "true"
{{- end }}

{{/* First of `initContainers`; nothing with `classic`. */}}
{{- define "samekey.initContainers" -}}
{{- if not .Values.classic }}
- {{- include "samekey.container" . | nindent 2 }}
  restartPolicy: Always
{{- end }}
{{- end }}

{{/* First of `containers`; nothing without `classic`. */}}
{{- define "samekey.containers" -}}
{{- if .Values.classic }}
- {{- include "samekey.container" . | nindent 2 }}
  lifecycle:
    postStart:
      exec:
        command: [samekey, health, --ready, --wait, 60s]
{{- end }}
{{- end }}

{{- define "samekey.container" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
name: samekey
image: {{ printf "%s%s%s" .Values.image.repository (hasPrefix "@" $tag | ternary "" ":") $tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run]
env:
  - name: SAMEKEY_CONFIG
    value: /etc/samekey/samekey.yaml
  - name: TMPDIR
    value: /var/lib/samekey
ports:
  - name: samekey-metrics
    containerPort: 17090
startupProbe:
  exec:
    command: [samekey, health, --ready]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /livez
    port: samekey-metrics
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: samekey-config
    mountPath: /etc/samekey
    readOnly: true
  - name: samekey-secret
    mountPath: /run/secrets/samekey
    readOnly: true
  - name: samekey-ca
    mountPath: /run/secrets/samekey-ca
    readOnly: true
  - name: samekey-state
    mountPath: /var/lib/samekey
  - name: samekey-public
    mountPath: /run/samekey
{{- end }}

{{/* Of `volumes`. */}}
{{- define "samekey.volumes" -}}
- name: samekey-config
  configMap:
    name: {{ .Values.configMap.name }}
- name: samekey-secret
  secret:
    secretName: {{ .Values.secret.name }}
- name: samekey-ca
  secret:
    secretName: {{ .Values.ca.secretName }}
    optional: true
- name: samekey-state
  emptyDir:
    sizeLimit: {{ .Values.stateSizeLimit }}
- name: samekey-public
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end }}

{{/* Of `volumeMounts` of each of your containers. */}}
{{- define "samekey.volumeMounts" -}}
- name: samekey-public
  mountPath: /run/samekey
  readOnly: true
{{- end }}

{{/* Of `env` of each of your containers: what `samekey env --format k8s` prints. */}}
{{- define "samekey.env" -}}
- name: HTTP_PROXY
  value: "http://127.0.0.1:17080"
- name: http_proxy
  value: "http://127.0.0.1:17080"
- name: HTTPS_PROXY
  value: "http://127.0.0.1:17080"
- name: https_proxy
  value: "http://127.0.0.1:17080"
- name: NO_PROXY
  value: "localhost,127.0.0.1,::1,.svc,.cluster.local,kubernetes.default.svc,169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,metadata.google.internal,$(KUBERNETES_SERVICE_HOST)"
- name: no_proxy
  value: "localhost,127.0.0.1,::1,.svc,.cluster.local,kubernetes.default.svc,169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,metadata.google.internal,$(KUBERNETES_SERVICE_HOST)"
- name: NODE_USE_ENV_PROXY
  value: "1"
- name: NODE_EXTRA_CA_CERTS
  value: "/run/samekey/public/ca.pem"
- name: SSL_CERT_FILE
  value: "/run/samekey/public/bundle.pem"
- name: REQUESTS_CA_BUNDLE
  value: "/run/samekey/public/bundle.pem"
- name: CURL_CA_BUNDLE
  value: "/run/samekey/public/bundle.pem"
- name: AWS_CA_BUNDLE
  value: "/run/samekey/public/bundle.pem"
- name: GIT_SSL_CAINFO
  value: "/run/samekey/public/bundle.pem"
- name: PIP_CERT
  value: "/run/samekey/public/bundle.pem"
- name: CARGO_HTTP_CAINFO
  value: "/run/samekey/public/bundle.pem"
- name: DENO_CERT
  value: "/run/samekey/public/bundle.pem"
- name: HTTPLIB2_CA_CERTS
  value: "/run/samekey/public/bundle.pem"
- name: GRPC_DEFAULT_SSL_ROOTS_FILE_PATH
  value: "/run/samekey/public/bundle.pem"
- name: PERL_LWP_SSL_CA_FILE
  value: "/run/samekey/public/bundle.pem"
- name: NIX_SSL_CERT_FILE
  value: "/run/samekey/public/bundle.pem"
- name: npm_config_cafile
  value: "/run/samekey/public/bundle.pem"
- name: BUNDLE_SSL_CA_CERT
  value: "/run/samekey/public/bundle.pem"
- name: COMPOSER_CAFILE
  value: "/run/samekey/public/bundle.pem"
- name: HEX_CACERTS_PATH
  value: "/run/samekey/public/bundle.pem"
- name: WEBSOCKET_CLIENT_CA_BUNDLE
  value: "/run/samekey/public/bundle.pem"
- name: CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE
  value: "/run/samekey/public/bundle.pem"
- name: JAVA_TOOL_OPTIONS
  value: "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=17080 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=17080 -Dhttp.nonProxyHosts=\"localhost|127.0.0.1|[::1]|*.svc|*.cluster.local|kubernetes.default.svc|169.254.169.254|169.254.170.2|169.254.170.23|[fd00:ec2::254]|metadata.google.internal\" -Djavax.net.ssl.trustStore=\"/run/samekey/public/truststore.p12\" -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=PKCS12"
- name: PERL_LWP_ENV_PROXY
  value: "1"
- name: PHP_INI_SCAN_DIR
  value: ":/run/samekey/public"
- name: SYSTEM_WGETRC
  value: "/run/samekey/public/wgetrc"
{{- end }}
