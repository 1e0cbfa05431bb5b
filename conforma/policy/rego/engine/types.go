// The declared types of arguments and results. They are closed where policies
// rely on the compiler to catch a misspelt member, and an array declared with
// one element accepts only index 0 directly on the call; both are contract.
package main

import "github.com/open-policy-agent/opa/v1/types"

func named(name string, t types.Type, description string) types.Type {
	return types.Named(name, t).Description(description)
}

func returning(result types.Type, args ...types.Type) *types.Function {
	return types.NewFunction(args, result)
}

func oneElement(t types.Type) types.Type { return types.NewArray([]types.Type{t}, nil) }

func closed(members ...*types.StaticProperty) types.Type { return types.NewObject(members, nil) }

func member(key string, t types.Type) *types.StaticProperty { return types.NewStaticProperty(key, t) }

func textMap() types.Type { return types.NewObject(nil, types.NewDynamicProperty(types.S, types.S)) }

func descriptorMembers() []*types.StaticProperty {
	platform := closed(
		member("architecture", types.S),
		member("os", types.S),
		member("os.version", types.S),
		member("os.features", oneElement(types.S)),
		member("variant", types.S),
		member("features", oneElement(types.S)),
	)
	return []*types.StaticProperty{
		member("mediaType", types.S),
		member("size", types.N),
		member("digest", types.S),
		member("data", types.S),
		member("urls", oneElement(types.S)),
		member("annotations", textMap()),
		member("platform", platform),
	}
}

func descriptorType() types.Type {
	return closed(append(descriptorMembers(), member("artifactType", types.S))...)
}

func manifestType() types.Type {
	return closed(
		member("schemaVersion", types.N),
		member("mediaType", types.S),
		member("config", descriptorType()),
		member("layers", oneElement(descriptorType())),
		member("annotations", textMap()),
		member("subject", descriptorType()),
	)
}

func indexType() types.Type {
	return closed(
		member("schemaVersion", types.N),
		member("mediaType", types.S),
		member("manifests", oneElement(closed(descriptorMembers()...))),
		member("annotations", textMap()),
	)
}

func referrerType() types.Type {
	return closed(
		member("mediaType", types.S),
		member("size", types.N),
		member("digest", types.S),
		member("artifactType", types.S),
		member("ref", types.S),
		member("annotations", textMap()),
	)
}

func treeEntryType() types.Type {
	return closed(
		member("path", types.S),
		member("kind", types.S),
		member("mode", types.N),
		member("uid", types.N),
		member("gid", types.N),
		member("size", types.N),
		member("link_target", types.S),
		member("layer", types.S),
	)
}

func signatureType() types.Type {
	return closed(
		member("keyid", types.S),
		member("signature", types.S),
		member("certificate", types.S),
		member("chain", oneElement(types.S)),
		member("metadata", textMap()),
	)
}

func verifyImageType() types.Type {
	return closed(
		member("success", types.B),
		member("errors", oneElement(types.S)),
		member("signatures", oneElement(signatureType())),
	)
}

func verifyAttestationType() types.Type {
	attestation := closed(
		member("statement", types.A),
		member("signatures", oneElement(signatureType())),
	)
	return closed(
		member("success", types.B),
		member("errors", oneElement(types.S)),
		member("attestations", oneElement(attestation)),
	)
}

// sigstoreOptionsType requires the one option that is no string.
func sigstoreOptionsType() types.Type {
	return types.NewObject(
		[]*types.StaticProperty{member("ignore_rekor", types.B)},
		types.NewDynamicProperty(types.S, types.S),
	)
}

func purlType() types.Type {
	return closed(
		member("type", types.S),
		member("namespace", types.S),
		member("name", types.S),
		member("version", types.S),
		member("qualifiers", types.NewArray(nil, closed(member("key", types.S), member("value", types.S)))),
		member("subpath", types.S),
	)
}
