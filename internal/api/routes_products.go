package api

import (
	"context"
	"encoding/hex"
	"net/http"

	"joinery"
	"joinery/client"
)

type (
	// ProductPath names a product in a path; see DevicePath.
	ProductPath struct {
		ID string `path:"id" pattern:"^prd_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"prd_ and 13 characters" doc:"The product's id"`
	}
	productKeyPath struct {
		ProductPath
		Key string `path:"key" pattern:"^pky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"pky_ and 13 characters" doc:"The key's id"`
	}
	releasePath struct {
		ProductPath
		Release string `path:"release" pattern:"^rel_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rel_ and 13 characters" doc:"The release's id"`
	}
	floorInput struct {
		ProductPath
		Release string `path:"release" pattern:"^rel_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rel_ and 13 characters" doc:"The release's id"`
		Body    client.FirmwareFloor
	}
	productListInput struct {
		ProductPath
		Paging
	}
	productKeyInput struct {
		ProductPath
		Body client.NewProductKey
	}
	releaseInput struct {
		ProductPath
		Body client.NewFirmwareRelease
	}
)

func (in ProductPath) parse() (joinery.ProductID, error) {
	return parse[joinery.ProductID](in.ID, "product")
}

func (s *Server) registerProducts() {
	route(s, spec{method: http.MethodGet, path: "/products", id: "listProducts", tag: "attestation",
		summary: "Products that the organisation registered", description: "To the operator all, or those of the organisation for which it acts."},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Product]], error) {
			list, err := s.Attestations.Products(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "products", list, func(p joinery.Product) string { return p.ID.String() }, product)
		})
	route(s, spec{method: http.MethodPost, path: "/products", id: "addProduct", tag: "attestation", status: http.StatusCreated,
		summary: "Register a product", description: "For makers: whose firmware their devices run, and how evidence of them is verified."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewProduct]) (*body[client.Product], error) {
			b := in.Body
			p := joinery.Product{
				Name: b.Name, Hardware: b.Hardware, DevEUIs: each(b.DevEUIs, func(r client.EUIRange) joinery.EUIRange { return joinery.EUIRange(r) }),
			}
			if b.Boot != nil {
				boot := joinery.BootProfile(*b.Boot)
				p.Boot = &boot
			}
			p, err := s.Attestations.AddProduct(ctx, caller, p)
			return ok(product(p)), err
		})
	route(s, spec{method: http.MethodGet, path: "/products/{id}", id: "getProduct", tag: "attestation", summary: "One product"},
		func(ctx context.Context, caller joinery.Caller, in *ProductPath) (*body[client.Product], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			p, err := s.Attestations.Product(ctx, caller, id)
			return ok(product(p)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/products/{id}", id: "removeProduct", tag: "attestation",
		summary: "Take a product away, with its keys and releases", description: "What its devices have shown stands until its time."},
		func(ctx context.Context, caller joinery.Caller, in *ProductPath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Attestations.RemoveProduct(ctx, caller, id)
		})
}

func product(p joinery.Product) client.Product {
	out := client.Product{
		ID: p.ID, Organisation: p.Org, Name: p.Name, Hardware: p.Hardware, CreatedAt: utc(p.CreatedAt),
		DevEUIs: each(p.DevEUIs, func(r joinery.EUIRange) client.EUIRange { return client.EUIRange(r) }),
	}
	if p.Boot != nil {
		boot := client.BootProfile(*p.Boot)
		out.Boot = &boot
	}
	return out
}

func (s *Server) registerProductKeys() {
	route(s, spec{method: http.MethodGet, path: "/products/{id}/keys", id: "listProductKeys", tag: "attestation",
		summary: "What verifies releases of a product, and evidence of its devices"}, s.listProductKeys)
	route(s, spec{method: http.MethodPost, path: "/products/{id}/keys", id: "addProductKey", tag: "attestation", status: http.StatusCreated,
		summary: "Register a key of a product, or of one device of it"},
		func(ctx context.Context, caller joinery.Caller, in *productKeyInput) (*body[client.ProductKey], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			k, err := s.Attestations.AddKey(ctx, caller, joinery.ProductKey{
				Product: id, Device: in.Body.Device, Use: joinery.ProductKeyUse(in.Body.Use), Public: in.Body.Public,
			})
			return ok(productKey(k)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/products/{id}/keys/{key}", id: "removeProductKey", tag: "attestation",
		summary: "Take a key of a product away", description: "What it verified stands until its time."},
		func(ctx context.Context, caller joinery.Caller, in *productKeyPath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			key, err := parse[joinery.ProductKeyID](in.Key, "key")
			if err != nil {
				return nil, err
			}
			return nil, s.Attestations.RemoveKey(ctx, caller, id, key)
		})
}

func (s *Server) listProductKeys(ctx context.Context, caller joinery.Caller, in *productListInput) (*body[client.Page[client.ProductKey]], error) {
	const listing = "product-keys"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	after, err := placeID[joinery.ProductKeyID](in.Paging, listing)
	if err != nil {
		return nil, err
	}
	list, err := s.Attestations.Keys(ctx, caller, id, after, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.ProductKey]{Items: each(list, productKey)}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, list[n-1].ID.String())
	}
	return ok(p), nil
}

func productKey(k joinery.ProductKey) client.ProductKey {
	return client.ProductKey{ID: k.ID, Use: string(k.Use), Device: k.Device, Public: k.Public, CreatedAt: utc(k.CreatedAt)}
}

func (s *Server) registerReleases() {
	route(s, spec{method: http.MethodGet, path: "/products/{id}/releases", id: "listFirmwareReleases", tag: "attestation",
		summary: "Signed firmware of a product"}, s.listReleases)
	route(s, spec{method: http.MethodPost, path: "/products/{id}/releases", id: "addFirmwareRelease", tag: "attestation", status: http.StatusCreated,
		summary: "Register a signed release", description: "Its statement has to be about this product and hardware, and signed by a registered key."},
		func(ctx context.Context, caller joinery.Caller, in *releaseInput) (*body[client.FirmwareRelease], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			f, err := s.Attestations.AddRelease(ctx, caller, id, []byte(in.Body.Statement))
			return ok(release(f)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/products/{id}/releases/{release}", id: "withdrawFirmwareRelease", tag: "attestation",
		summary: "Withdraw a release", description: "Evidence of it proves nothing from then on, and what rests on it ends. " +
			"Devices that have shown it still may not go below its counter; see lowerFirmwareFloor."},
		func(ctx context.Context, caller joinery.Caller, in *releasePath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			f, err := parse[joinery.ReleaseID](in.Release, "release")
			if err != nil {
				return nil, err
			}
			return nil, s.Attestations.WithdrawRelease(ctx, caller, id, f)
		})
	route(s, spec{method: http.MethodPut, path: "/products/{id}/releases/{release}/floor", id: "lowerFirmwareFloor", tag: "attestation",
		summary: "Let devices that have shown a withdrawn release go down to an older one",
		description: "Without this nothing with a counter below that of a release which a device has shown is accepted of it, whether the release was withdrawn or not. " +
			"It is for a release whose counter was a mistake, or that has to be taken back before there is a newer one."},
		func(ctx context.Context, caller joinery.Caller, in *floorInput) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			f, err := parse[joinery.ReleaseID](in.Release, "release")
			if err != nil {
				return nil, err
			}
			return nil, s.Attestations.LowerFloor(ctx, caller, id, f, in.Body.Counter)
		})
}

func (s *Server) listReleases(ctx context.Context, caller joinery.Caller, in *productListInput) (*body[client.Page[client.FirmwareRelease]], error) {
	const listing = "releases"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	after, err := placeID[joinery.ReleaseID](in.Paging, listing)
	if err != nil {
		return nil, err
	}
	list, err := s.Attestations.Releases(ctx, caller, id, after, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.FirmwareRelease]{Items: each(list, release)}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, list[n-1].ID.String())
	}
	return ok(p), nil
}

func release(f joinery.Release) client.FirmwareRelease {
	return client.FirmwareRelease{
		ID: f.ID, Version: f.Version, SHA256: hex.EncodeToString(f.Digest[:]), Counter: f.Counter, Key: f.Key,
		Statement: string(f.Statement), At: utc(f.At), WithdrawnAt: utc(f.WithdrawnAt), Floor: f.Lowered,
	}
}
