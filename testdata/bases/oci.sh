# Functions that write OCI image layouts with nothing but tar, gzip, jq and
# sha256sum, so that base images don't depend on the builder under test.
# Sourced; the caller sets -euo pipefail and EPOCH (seconds).
# shellcheck shell=bash

# OWNERLESS makes a tar a function of names, modes and bytes.
OWNERLESS=(--sort=name --format=posix --numeric-owner --owner=0 --group=0
	--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime)

# blob LAYOUT FILE MEDIATYPE: moves FILE into the layout, prints its descriptor.
blob() {
	local sum size
	sum=$(sha256sum "$2" | cut -d' ' -f1)
	size=$(stat -c %s "$2")
	mkdir -p "$1/blobs/sha256"
	mv "$2" "$1/blobs/sha256/$sum"
	jq -cn --arg t "$3" --arg d "sha256:$sum" --argjson s "$size" '{mediaType: $t, digest: $d, size: $s}'
}

# layer LAYOUT TAR CREATED_BY: compresses TAR into the layout, prints
# {layer: descriptor, diffID, history}. TAR is removed.
layer() {
	local diff desc
	diff=sha256:$(sha256sum "$2" | cut -d' ' -f1)
	gzip -n -6 <"$2" >"$2.gz"
	rm "$2"
	desc=$(blob "$1" "$2.gz" application/vnd.oci.image.layer.v1.tar+gzip)
	jq -cn --argjson l "$desc" --arg d "$diff" --arg by "$3" --arg at "$(date -u -d "@$EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
		'{layer: $l, diffID: $d, history: {created: $at, created_by: $by}}'
}

# image LAYOUT ARCH CONFIG LAYER...: writes config and manifest, prints the
# manifest's descriptor with its platform. CONFIG is the JSON object of
# "config", each LAYER a line that layer printed.
image() {
	local out=$1 arch=$2 config=$3 layers desc created
	shift 3
	layers=$(printf '%s\n' "$@" | jq -cs .)
	created=$(date -u -d "@$EPOCH" +%Y-%m-%dT%H:%M:%SZ)
	jq -cn --arg arch "$arch" --arg at "$created" --argjson config "$config" --argjson layers "$layers" \
		'{created: $at, architecture: $arch, os: "linux", config: $config,
		  rootfs: {type: "layers", diff_ids: [$layers[].diffID]}, history: [$layers[].history]}
		 | if $arch == "arm64" then .variant = "v8" else . end' >"$out/config.tmp"
	desc=$(blob "$out" "$out/config.tmp" application/vnd.oci.image.config.v1+json)
	jq -cn --argjson config "$desc" --argjson layers "$layers" \
		'{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: [$layers[].layer]}' >"$out/manifest.tmp"
	blob "$out" "$out/manifest.tmp" application/vnd.oci.image.manifest.v1+json |
		jq -c --arg arch "$arch" '.platform = ({architecture: $arch, os: "linux"} + if $arch == "arm64" then {variant: "v8"} else {} end)'
}

# index LAYOUT MANIFEST...: writes an image index, prints its descriptor.
index() {
	local out=$1
	shift
	printf '%s\n' "$@" | jq -cs '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: .}' >"$out/index.tmp"
	blob "$out" "$out/index.tmp" application/vnd.oci.image.index.v1+json
}

# tag LAYOUT TAG DESCRIPTOR: makes the layout's only entry. Comes last: a
# directory without index.json is not a layout.
tag() {
	printf '{"imageLayoutVersion":"1.0.0"}\n' >"$1/oci-layout"
	jq -n --arg tag "$2" --argjson d "$3" \
		'{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
		  manifests: [$d + {annotations: {"org.opencontainers.image.ref.name": $tag}}]}' >"$1/index.json"
}
